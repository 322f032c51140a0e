package main

import "strings"

// extensions are the ends of file names that are not let through, in lower case.
type extensions []string

// parseExtensions reads values; bad is the first that is none.
func parseExtensions(values []string) (x extensions, bad string) {
	for _, v := range values {
		e := strings.TrimPrefix(strings.ToLower(v), ".")
		if e == "" || len(e) > 32 || strings.ContainsAny(e, " */\\:\"") || strings.HasPrefix(e, ".") || strings.HasSuffix(e, ".") {
			return nil, v
		}
		x = append(x, e)
	}
	return x, ""
}

// refuse reports whether a file name has one of the extensions at its end, or
// one that looks like it: with dots or spaces behind it, in other case, with
// another extension behind it, or with the writing direction turned round.
func (x extensions) refuse(name string) bool {
	if len(x) == 0 {
		return false
	}
	if strings.ContainsAny(name, "\u202d\u202e") {
		return true // "photo\u202egpj.exe" looks like "photoexe.jpg"
	}
	name = strings.ToLower(strings.Map(visible, name))
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	name = strings.ReplaceAll(name, ":", ".") // "a.exe:.jpg" is the file a.exe
	pieces := strings.FieldsFunc(name, func(r rune) bool { return r == '.' })
	for i := range pieces {
		pieces[i] = strings.TrimSpace(pieces[i])
	}
	for len(pieces) > 0 && pieces[len(pieces)-1] == "" {
		pieces = pieces[:len(pieces)-1]
	}
	whole := "." + strings.Join(pieces, ".")
	for _, e := range x {
		if strings.HasSuffix(whole, "."+e) && (len(pieces) > 1 || strings.HasPrefix(name, ".")) {
			return true
		}
		// Host names end in "com", and people name files after them.
		if len(pieces) > 2 && e != "com" && strings.Contains(whole[1+len(pieces[0]):], "."+e+".") {
			return true
		}
	}
	return false
}

// visible takes out characters that show nothing, which divide an extension for
// one program and not for another.
func visible(r rune) rune {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0, r == 0xad, r == 0x61c, r == 0xfeff:
		return -1
	case r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2060 && r <= 0x206f:
		return -1
	case r == 0xa0, r >= 0x2000 && r <= 0x200a, r == 0x3000:
		return ' '
	}
	return r
}
