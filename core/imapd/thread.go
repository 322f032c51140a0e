package imapd

import (
	"cmp"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// Bounds of threading by references. A message refers to its nearest ancestors by
// the end of References; what exceeds the bound is left out.
const (
	maxReferences = 100
	maxMessageID  = 1000     // octets
	ancestorSteps = 20 << 20 // of looking for loops in one command, before looks become short
	shortLook     = 64
)

// cmdThread is THREAD and UID THREAD (RFC 5256).
func (s *session) cmdThread(p *parser, byUID bool) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	algorithm, err := p.keyword()
	if err != nil {
		return done{}, err
	}
	if algorithm != "REFERENCES" && algorithm != "ORDEREDSUBJECT" {
		return done{}, bad("Threads are made by REFERENCES or ORDEREDSUBJECT")
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	var q searchQuery
	if err := (&searchParser{p: p, q: &q}).criteria(); err != nil {
		return done{}, err
	}
	found, err := s.find(&q)
	if err != nil {
		return done{}, err
	}
	t, err := s.gather(found, algorithm == "REFERENCES")
	if err != nil {
		return done{}, err
	}
	var roots []int32
	if algorithm == "REFERENCES" {
		roots = t.byReferences()
	} else {
		roots = t.bySubject()
	}
	s.out.str("* THREAD")
	if len(roots) > 0 {
		s.out.byte(' ')
	}
	t.write(&s.out, roots, func(i int32) uint64 {
		if byUID {
			return uint64(s.view.msgs[i].UID)
		}
		return uint64(i) + 1
	})
	s.out.crlf()
	return done{}, nil
}

// none is no node.
const none = -1

// threadNode is a message, or a place where one is missing.
type threadNode struct {
	msg      int32 // index in the view, none: missing
	parent   int32
	children []int32
	date     int64 // when it was sent
	subject  string
	reply    bool
	refs     []string // until they are linked
}

// threads is a forest of nodes; the first are the messages, in their order.
type threads struct {
	nodes []threadNode
	byID  map[string]int32
	steps int
}

// gather reads what threads are made of.
func (s *session) gather(found []int32, references bool) (*threads, error) {
	t := &threads{nodes: make([]threadNode, len(found)), byID: map[string]int32{}}
	defer s.view.noted()
	look := s.lookAhead(found)
	defer look.end()
	progress := s.newProgress(len(found))
	for n, i := range found {
		if err := progress.step(n); err != nil {
			return nil, err
		}
		look.reach(n)
		m := &s.view.msgs[i]
		node := &t.nodes[n]
		*node = threadNode{msg: i, parent: none, date: m.Date.Unix()}
		id := ""
		err := s.listed(m.UID, func(header []byte) { id = node.read(header, references) })
		if err != nil {
			return nil, err
		}
		if _, twice := t.byID[id]; id != "" && !twice {
			t.byID[id] = int32(n)
		}
	}
	return t, nil
}

// read takes date, subject and references from a header and returns the Message-ID.
func (n *threadNode) read(header []byte, references bool) (id string) {
	var inReplyTo []string
	var dated, titled bool
	for f := range mail.HeaderFields(header) {
		switch {
		case f.Is("Date") && !dated:
			dated = true
			if t, ok := sentDate(f.Value()); ok {
				n.date = t.Unix()
			}
		case f.Is("Subject") && !titled:
			titled = true
			n.subject, n.reply = baseSubject(f.Value())
		case !references:
		case f.Is("Message-ID") && id == "":
			if ids := messageIDs(f.Value(), 1); len(ids) > 0 {
				id = ids[0]
			}
		case f.Is("References") && n.refs == nil:
			n.refs = messageIDs(f.Value(), 0)
		case f.Is("In-Reply-To") && inReplyTo == nil:
			inReplyTo = messageIDs(f.Value(), 1)
		}
	}
	if n.refs == nil {
		n.refs = inReplyTo
	}
	return id
}

// messageIDs finds message identifiers (RFC 5322 §3.6.4), the last maxReferences of
// them, or the first only. Quotes around a left side do not make another identifier.
func messageIDs(s string, first int) (ids []string) {
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			return ids
		}
		s = s[i+1:]
		end := strings.IndexByte(s, '>')
		if end < 0 {
			return ids
		}
		id := s[:end]
		if inner := strings.LastIndexByte(id, '<'); inner >= 0 {
			id = id[inner+1:]
		}
		s = s[end+1:]
		if strings.IndexByte(id, '@') < 0 || len(id) > maxMessageID {
			continue
		}
		if strings.ContainsAny(id, "\" \t\\") {
			if id = normalID(id); id == "" {
				continue
			}
		}
		if ids = append(ids, id); len(ids) == first {
			return ids
		}
		if len(ids) > maxReferences {
			ids = append(ids[:0], ids[1:]...)
		}
	}
}

// normalID removes quotes and blanks from an identifier.
func normalID(id string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(id); i++ {
		switch c := id[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted && i+1 < len(id):
			i++
			b.WriteByte(id[i])
		case (c == ' ' || c == '\t') && !quoted:
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// node finds the node of an identifier, or makes one for a message that is missing.
func (t *threads) node(id string) int32 {
	n, ok := t.byID[id]
	if !ok {
		n = int32(len(t.nodes))
		t.nodes = append(t.nodes, threadNode{msg: none, parent: none})
		t.byID[id] = n
	}
	return n
}

// link makes child a child of parent, unless parent descends from it. Looking for
// that is bounded: threads that have been made to be deep are cut short.
func (t *threads) link(parent, child int32) {
	left := shortLook
	if t.steps < ancestorSteps {
		left = len(t.nodes)
	}
	for n := parent; n != none; n = t.nodes[n].parent {
		t.steps++
		if left--; n == child || left < 0 {
			return
		}
	}
	t.nodes[child].parent = parent
}

// byReferences makes threads by RFC 5256 §3, REFERENCES, and returns their roots.
func (t *threads) byReferences() []int32 {
	messages := int32(len(t.nodes))
	for i := range messages {
		refs := t.nodes[i].refs
		t.nodes[i].refs = nil
		last := int32(none)
		for _, id := range refs {
			n := t.node(id)
			if last != none && t.nodes[n].parent == none && n != last {
				t.link(last, n)
			}
			last = n
		}
		t.nodes[i].parent = none // a message that refers to itself last has no parent
		if last != none && last != i {
			t.link(last, i)
		}
	}
	for i := range int32(len(t.nodes)) {
		if p := t.nodes[i].parent; p != none {
			t.nodes[p].children = append(t.nodes[p].children, i)
		}
	}
	var roots []int32
	for i := range int32(len(t.nodes)) {
		if t.nodes[i].parent == none {
			roots = append(roots, i)
		}
	}
	roots = t.prune(roots)
	for _, r := range roots {
		t.arrange(r)
	}
	t.sort(roots)
	return t.gatherSubjects(roots)
}

// prune removes missing messages without children, and those in the midst of a
// thread, whose children move up; at the root only if there is one child.
func (t *threads) prune(roots []int32) []int32 {
	order := t.below(roots)
	for k := len(order) - 1; k >= 0; k-- { // children before parents
		n := &t.nodes[order[k]]
		var kept []int32
		for _, c := range n.children {
			child := &t.nodes[c]
			if child.msg != none {
				kept = append(kept, c)
				continue
			}
			for _, g := range child.children {
				t.nodes[g].parent = order[k]
			}
			kept = append(kept, child.children...)
			child.children = nil
		}
		n.children = kept
	}
	var out []int32
	for _, r := range roots {
		n := &t.nodes[r]
		switch {
		case n.msg != none || len(n.children) > 1:
			out = append(out, r)
		case len(n.children) == 1:
			c := n.children[0]
			t.nodes[c].parent = none
			out = append(out, c)
		}
	}
	return out
}

// below lists nodes and all that descend from them, parents first.
func (t *threads) below(roots []int32) []int32 {
	order := slices.Clone(roots)
	for k := 0; k < len(order); k++ {
		order = append(order, t.nodes[order[k]].children...)
	}
	return order
}

// arrange sorts the children everywhere below a node, and gives a missing message the
// date and the subject of its first child.
func (t *threads) arrange(root int32) {
	order := t.below([]int32{root})
	for k := len(order) - 1; k >= 0; k-- {
		n := &t.nodes[order[k]]
		t.sort(n.children)
		if n.msg == none && len(n.children) > 0 {
			c := &t.nodes[n.children[0]]
			n.date, n.subject, n.reply = c.date, c.subject, c.reply
		}
	}
}

// sort orders siblings by the date they were sent, then by number.
func (t *threads) sort(siblings []int32) {
	slices.SortStableFunc(siblings, func(a, b int32) int {
		x, y := &t.nodes[a], &t.nodes[b]
		return cmp.Or(cmp.Compare(x.date, y.date), cmp.Compare(t.number(a), t.number(b)))
	})
}

// number is a message's index, or for one that is missing its first child's.
func (t *threads) number(n int32) int32 {
	for t.nodes[n].msg == none && len(t.nodes[n].children) > 0 {
		n = t.nodes[n].children[0]
	}
	return t.nodes[n].msg
}

// gatherSubjects joins threads with the same subject (RFC 5256 §3, REFERENCES, step 5).
func (t *threads) gatherSubjects(roots []int32) []int32 {
	table := map[string]int32{}
	for _, r := range roots {
		n := &t.nodes[r]
		if n.subject == "" {
			continue
		}
		have, ok := table[n.subject]
		if !ok || n.msg == none && t.nodes[have].msg != none || t.nodes[have].msg != none && t.nodes[have].reply && !n.reply {
			table[n.subject] = r
		}
	}
	gone := map[int32]bool{}
	changed := map[int32]bool{}
	var added []int32
	adopt := func(parent int32, children ...int32) {
		for _, c := range children {
			t.nodes[c].parent = parent
		}
		t.nodes[parent].children = append(t.nodes[parent].children, children...)
		changed[parent] = true
	}
	for _, r := range roots {
		subject := t.nodes[r].subject
		if subject == "" || table[subject] == r {
			continue
		}
		first := table[subject]
		cur, have := &t.nodes[r], &t.nodes[first]
		switch {
		case cur.msg == none && have.msg == none:
			children := cur.children
			cur.children = nil
			adopt(first, children...)
			gone[r] = true
		case have.msg == none || cur.reply && !have.reply:
			adopt(first, r)
			gone[r] = true
		default:
			both := int32(len(t.nodes))
			t.nodes = append(t.nodes, threadNode{msg: none, parent: none, subject: subject})
			adopt(both, first, r)
			gone[first], gone[r] = true, true
			table[subject] = both
			added = append(added, both)
		}
	}
	var out []int32
	for _, r := range append(slices.Clone(roots), added...) {
		if !gone[r] {
			out = append(out, r)
		}
	}
	for r := range changed {
		t.sort(t.nodes[r].children)
		if n := &t.nodes[r]; n.msg == none && len(n.children) > 0 {
			n.date = t.nodes[n.children[0]].date
		}
	}
	t.sort(out)
	return out
}

// bySubject makes threads by RFC 5256 §3, ORDEREDSUBJECT: all with the same subject
// are children of the one that was sent first.
func (t *threads) bySubject() []int32 {
	all := make([]int32, len(t.nodes))
	for i := range all {
		all[i] = int32(i)
	}
	t.sort(all)
	first := map[string]int32{}
	var roots []int32
	for _, i := range all {
		root, ok := first[t.nodes[i].subject]
		if !ok {
			first[t.nodes[i].subject] = i
			roots = append(roots, i)
			continue
		}
		t.nodes[root].children = append(t.nodes[root].children, i)
		t.nodes[i].parent = root
	}
	return roots
}

// write writes threads as RFC 5256 §4 has them. It does not call itself: a thread may
// be as deep as the mailbox is long.
func (t *threads) write(w *writer, roots []int32, number func(int32) uint64) {
	type step struct {
		node  int32 // none: a closing parenthesis
		blank bool  // a space comes first
	}
	var todo []step
	for _, r := range slices.Backward(roots) {
		todo = append(todo, step{none, false}, step{r, false})
		todo = append(todo, step{none - 1, false})
	}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch s.node {
		case none:
			w.byte(')')
			continue
		case none - 1:
			w.byte('(')
			continue
		}
		n := &t.nodes[s.node]
		if s.blank {
			w.byte(' ')
		}
		if n.msg != none {
			w.num(number(n.msg))
		}
		if len(n.children) == 1 {
			todo = append(todo, step{n.children[0], n.msg != none})
			continue
		}
		if len(n.children) > 1 && n.msg != none {
			w.byte(' ')
		}
		for _, c := range slices.Backward(n.children) {
			todo = append(todo, step{none, false}, step{c, false}, step{none - 1, false})
		}
	}
}
