package main

import (
	"regexp/syntax"
	"strings"
)

// An expression costs a Wasm guest thousands of instructions for each
// character that it looks at. Most values can be told apart without it: a
// needle is text that is in whatever an expression matches.

// maxNeedles is how many texts of alternatives are looked for.
const maxNeedles = 32

// needles returns texts in lower case of which one is in every ASCII value that
// pattern matches, in whatever case; nil if there are none to go by.
func needles(pattern string) []string {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil
	}
	return required(re.Simplify())
}

func required(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r >= 0x80 { // what folds to ASCII, and what never is in it
				return nil
			}
		}
		return []string{strings.ToLower(string(re.Rune))}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		for _, sub := range re.Sub {
			if n := required(sub); shortest(n) > shortest(best) {
				best = n
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			n := required(sub)
			if n == nil || len(all)+len(n) > maxNeedles {
				return nil
			}
			all = append(all, n...)
		}
		return all
	}
	return nil
}

// shortest is the length of the shortest of n, 0 if there is none.
func shortest(n []string) int {
	length := 0
	for i, s := range n {
		if i == 0 || len(s) < length {
			length = len(s)
		}
	}
	return length
}

// text is a value that expressions are tried on.
type text struct {
	value string
	lower string // in lower case, "" if not all of it is ASCII
}

func newText(value string) text {
	t := text{value: value}
	if isPlain(value) {
		t.lower = strings.ToLower(value)
	}
	return t
}

// matches reports whether the rule's expression matches t.
func (r *rule) matches(t *text) bool {
	if len(r.needles) > 0 && (t.lower != "" || t.value == "") && !containsAny(t.lower, r.needles) {
		return false
	}
	return r.pattern.MatchString(t.value)
}

func containsAny(s string, needles []string) bool {
	for _, n := range needles {
		if strings.Contains(s, n) {
			return true
		}
	}
	return false
}
