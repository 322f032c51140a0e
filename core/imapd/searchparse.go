package imapd

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/text/encoding/htmlindex"

	"github.com/wafermail/wafer/core/maildir"
)

// searchOp says what a search key looks at. They are in the order of what they
// cost: the message list, the header, the whole message.
type searchOp uint8

const (
	searchAnd searchOp = iota
	searchOr
	searchNot
	searchAll
	searchSeq
	searchUID
	searchHas    // a flag
	searchHasNot // no flag
	searchKeyword
	searchNotKeyword
	searchRecent
	searchOld
	searchNew
	searchLarger
	searchSmaller
	searchBefore
	searchOn
	searchSince
	searchOlder
	searchYounger
	searchModSeq
	searchSavedBefore
	searchSavedOn
	searchSavedSince
	searchSaveDates // whether dates of saving are known at all
	searchThreadID

	searchHeader // from here on the message is opened
	searchSentBefore
	searchSentOn
	searchSentSince

	searchEmailID
	searchBody // from here on all of it is read
	searchText
)

// searchKey is a node of what SEARCH looks for (RFC 9051 §6.4.4).
type searchKey struct {
	op     searchOp
	keys   []searchKey // of and, or, not
	set    numSet
	ranges ranges // set, resolved
	flag   maildir.Flags
	name   string // of a keyword or a header field
	text   string // folded
	num    uint64
	day    time.Time
	cost   searchOp // of the dearest key inside
}

// searchQuery is a SEARCH command.
type searchQuery struct {
	key                        searchKey
	extended                   bool // RETURN was given
	min, max, count, all, save bool
	partial                    *partial
	modseq                     bool // a MODSEQ key was used
	sizes                      bool // a key looks at sizes
}

// searchParser reads search keys.
type searchParser struct {
	p       *parser
	q       *searchQuery
	keys    int
	charset string
}

// searchQuery reads SEARCH's arguments.
func (p *parser) searchQuery() (q searchQuery, err error) {
	if err = p.space(); err != nil {
		return q, err
	}
	sp := &searchParser{p: p, q: &q}
	if err = sp.results(); err != nil {
		return q, err
	}
	if p.word("CHARSET") {
		if err = p.space(); err != nil {
			return q, err
		}
		if err = sp.readCharset(); err != nil {
			return q, err
		}
	}
	q.key, err = sp.and(0, false)
	return q, err
}

// results reads "RETURN (…) ", if it is there.
func (sp *searchParser) results() error {
	p, q := sp.p, sp.q
	if !p.word("RETURN") {
		return nil
	}
	q.extended = true
	if err := p.space(); err != nil {
		return err
	}
	if err := p.list(sp.option); err != nil {
		return err
	}
	if q.all && q.partial != nil {
		return bad("ALL and PARTIAL exclude each other")
	}
	if !q.min && !q.max && !q.count && !q.save && q.partial == nil {
		q.all = true
	}
	return p.space()
}

// readCharset reads the name of a character set.
func (sp *searchParser) readCharset() (err error) {
	if sp.charset, err = sp.p.astring(); err != nil {
		return err
	}
	if !knownCharset(sp.charset) {
		return no("BADCHARSET (US-ASCII UTF-8)", "Character set is unknown")
	}
	return sp.p.space()
}

// word moves past an atom if it is next and a space follows.
func (p *parser) word(w string) bool {
	rest := p.rest()
	if len(rest) > len(w) && rest[len(w)] == ' ' && strings.EqualFold(string(rest[:len(w)]), w) {
		p.pos += len(w)
		return true
	}
	return false
}

func (sp *searchParser) option() error {
	word, err := sp.p.keyword()
	if err != nil {
		return err
	}
	switch word {
	case "MIN":
		sp.q.min = true
	case "MAX":
		sp.q.max = true
	case "COUNT":
		sp.q.count = true
	case "ALL":
		sp.q.all = true
	case "SAVE":
		sp.q.save = true
	case "PARTIAL":
		if sp.q.partial != nil {
			return bad("PARTIAL is there already")
		}
		if err := sp.p.space(); err != nil {
			return err
		}
		sp.q.partial, err = sp.p.partial()
		return err
	default:
		return bad("Unknown result option %s", clip(word, 40))
	}
	return nil
}

// and reads keys up to the end or, inside, up to a closing parenthesis. The
// cheap ones are put first.
func (sp *searchParser) and(depth int, inside bool) (searchKey, error) {
	k := searchKey{op: searchAnd}
	for {
		sub, err := sp.key(depth)
		if err != nil {
			return k, err
		}
		k.keys = append(k.keys, sub)
		k.cost = max(k.cost, sub.cost)
		if inside && sp.p.eat(')') || !inside && sp.p.atEnd() {
			break
		}
		if err := sp.p.space(); err != nil {
			return k, err
		}
		if inside && sp.p.eat(')') || !inside && sp.p.atEnd() { // after a blank that should not be there
			break
		}
	}
	slices.SortStableFunc(k.keys, func(a, b searchKey) int { return int(a.cost) - int(b.cost) })
	return k, nil
}

// flagKeys are the keys that ask for a system flag.
func flagKey(word string) (searchOp, maildir.Flags) {
	op := searchHas
	if rest, ok := strings.CutPrefix(word, "UN"); ok {
		op, word = searchHasNot, rest
	}
	switch word {
	case "ANSWERED":
		return op, maildir.Answered
	case "DELETED":
		return op, maildir.Deleted
	case "DRAFT":
		return op, maildir.DraftFlag
	case "FLAGGED":
		return op, maildir.Flagged
	case "SEEN":
		return op, maildir.Seen
	}
	return searchAll, 0
}

// key reads one key.
func (sp *searchParser) key(depth int) (searchKey, error) {
	p := sp.p
	if sp.keys++; sp.keys > maxKeys || depth > maxNesting {
		return searchKey{}, bad("Search is too complex")
	}
	if p.eat('(') {
		p.blanks()
		return sp.and(depth+1, true)
	}
	if c := p.peek(); c >= '0' && c <= '9' || c == '*' || c == '$' {
		set, err := p.numSet()
		return searchKey{op: searchSeq, set: set}, err
	}
	word, err := p.keyword()
	if err != nil {
		return searchKey{}, err
	}
	if op, flag := flagKey(word); flag != 0 {
		return searchKey{op: op, flag: flag}, nil
	}
	switch word {
	case "ALL":
		return searchKey{op: searchAll}, nil
	case "RECENT":
		return searchKey{op: searchRecent}, nil
	case "OLD":
		return searchKey{op: searchOld}, nil
	case "NEW":
		return searchKey{op: searchNew}, nil
	case "SAVEDATESUPPORTED":
		return searchKey{op: searchSaveDates}, nil
	}
	if err := p.space(); err != nil {
		return searchKey{}, err
	}
	k, err := sp.argument(word, depth)
	k.cost = max(k.cost, k.op)
	return k, err
}

// argument reads what follows a key's name.
func (sp *searchParser) argument(word string, depth int) (k searchKey, err error) {
	p := sp.p
	switch word {
	case "NOT":
		sub, err := sp.key(depth + 1)
		return searchKey{op: searchNot, keys: []searchKey{sub}, cost: sub.cost}, err
	case "OR":
		a, err := sp.key(depth + 1)
		if err != nil {
			return k, err
		}
		if err := p.space(); err != nil {
			return k, err
		}
		b, err := sp.key(depth + 1)
		return searchKey{op: searchOr, keys: []searchKey{a, b}, cost: max(a.cost, b.cost)}, err
	case "UID":
		k.op = searchUID
		k.set, err = p.numSet()
	case "KEYWORD", "UNKEYWORD":
		k.op = searchKeyword
		if word == "UNKEYWORD" {
			k.op = searchNotKeyword
		}
		k.name, err = p.flag()
	case "LARGER", "SMALLER":
		k.op = searchLarger
		sp.q.sizes = true
		if word == "SMALLER" {
			k.op = searchSmaller
		}
		k.num, err = p.number64()
	case "OLDER", "YOUNGER": // RFC 5032
		k.op = searchOlder
		if word == "YOUNGER" {
			k.op = searchYounger
		}
		var n uint32
		if n, err = p.number(); err == nil && n == 0 {
			err = bad("Interval is 0")
		}
		k.num = uint64(n)
	case "MODSEQ":
		k.op = searchModSeq
		sp.q.modseq = true
		k.num, err = p.modSeqKey()
	case "EMAILID", "THREADID": // RFC 8474 §6
		k.op = searchEmailID
		if word == "THREADID" {
			k.op = searchThreadID
		}
		k.name, err = p.astring()
	case "BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE", "SAVEDBEFORE", "SAVEDON", "SAVEDSINCE":
		k.op = map[string]searchOp{"SAVEDBEFORE": searchSavedBefore, "SAVEDON": searchSavedOn, "SAVEDSINCE": searchSavedSince,
			"BEFORE": searchBefore, "ON": searchOn, "SINCE": searchSince,
			"SENTBEFORE": searchSentBefore, "SENTON": searchSentOn, "SENTSINCE": searchSentSince}[word]
		k.day, err = p.date()
	case "BCC", "CC", "FROM", "SUBJECT", "TO":
		k.op, k.name = searchHeader, word
		k.text, err = sp.text()
	case "HEADER":
		k.op = searchHeader
		if k.name, err = p.astring(); err != nil {
			return k, err
		}
		if err = p.space(); err != nil {
			return k, err
		}
		k.text, err = sp.text()
	case "BODY":
		k.op = searchBody
		k.text, err = sp.text()
	case "TEXT":
		k.op = searchText
		k.text, err = sp.text()
	default:
		return k, bad("Unknown search key %s", clip(word, 40))
	}
	return k, err
}

// modSeqKey reads the argument of MODSEQ (RFC 7162 §3.1.5). The entry that may
// come first names one flag's own sequence, which is not kept apart.
func (p *parser) modSeqKey() (uint64, error) {
	if p.peek() == '"' {
		if _, err := p.quoted(); err != nil {
			return 0, err
		}
		if err := p.space(); err != nil {
			return 0, err
		}
		if _, err := p.atom(); err != nil {
			return 0, err
		}
		if err := p.space(); err != nil {
			return 0, err
		}
	}
	return p.number64()
}

// text reads a string to search for, in UTF-8 and folded.
func (sp *searchParser) text() (string, error) {
	s, err := sp.p.astring()
	if err != nil {
		return "", err
	}
	if enc, err := htmlindex.Get(sp.charset); err == nil && !isUTF8(sp.charset) {
		if decoded, err := enc.NewDecoder().String(s); err == nil {
			s = decoded
		}
	}
	return foldText(s), nil
}

func isUTF8(charset string) bool {
	return charset == "" || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii")
}

func knownCharset(charset string) bool {
	_, err := htmlindex.Get(charset)
	return err == nil || isUTF8(charset)
}
