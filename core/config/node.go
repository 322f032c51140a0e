package config

import (
	"fmt"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// node is one block being read. Every key that is asked for is known; done
// reports those that are left.
type node struct {
	r      *reader
	body   *hclsyntax.Body
	what   string // "listener \"mx\"", for messages
	attrs  []string
	blocks []string
}

// fault adds a diagnostic.
func (r *reader) fault(at hcl.Range, summary, detail string) {
	r.diags = append(r.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: &at})
}

func (r *reader) node(body *hclsyntax.Body, what string) *node {
	return &node{r: r, body: body, what: what}
}

// value evaluates an attribute. ok is false if it is absent or faulty.
func (n *node) value(name string) (v cty.Value, at hcl.Range, ok bool) {
	n.attrs = append(n.attrs, name)
	a := n.body.Attributes[name]
	if a == nil {
		return cty.NilVal, n.body.MissingItemRange(), false
	}
	v, diags := a.Expr.Value(n.r.eval)
	n.r.diags = append(n.r.diags, diags...)
	if diags.HasErrors() {
		return cty.NilVal, a.SrcRange, false
	}
	if v.IsNull() || !v.IsWhollyKnown() {
		n.r.fault(a.Expr.Range(), name+" has no value", "Write a value, or leave the line out.")
		return cty.NilVal, a.SrcRange, false
	}
	return v, a.Expr.Range(), true
}

// wrong reports a value of the wrong kind.
func (n *node) wrong(at hcl.Range, name, want string) {
	n.r.fault(at, name+" is not "+want, "In "+n.what+", write "+want+".")
}

// text reads a string.
func (n *node) text(name, fallback string) string {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	if v.Type() != cty.String {
		n.wrong(at, name, `a text in quotes, such as `+name+` = "…"`)
		return fallback
	}
	return v.AsString()
}

// need reads a string that must be there.
func (n *node) need(name, help string) string {
	before := len(n.r.diags)
	s := n.text(name, "")
	if n.body.Attributes[name] == nil {
		n.r.fault(n.body.MissingItemRange(), n.what+" has no "+name, "Write "+help)
	} else if s == "" && len(n.r.diags) == before {
		n.r.fault(n.body.Attributes[name].Expr.Range(), name+" is empty", "Write "+help)
	}
	return s
}

// choice reads one of several words.
func (n *node) choice(name, fallback string, words ...string) string {
	s := n.text(name, fallback)
	if s != fallback && !slices.Contains(words, s) {
		n.r.fault(n.at(name), name+" cannot be "+strconv.Quote(s), "Write "+oneOf(words)+"."+meant(s, words))
		return fallback
	}
	return s
}

// at is the place of an attribute's value, or of the block if it is absent.
func (n *node) at(name string) hcl.Range {
	if a := n.body.Attributes[name]; a != nil {
		return a.Expr.Range()
	}
	return n.body.MissingItemRange()
}

// path reads a file name, relative to the folder of its file.
func (n *node) path(name, fallback string) string {
	s := n.text(name, fallback)
	if s == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(n.r.dir, s)
}

func (n *node) flag(name string, fallback bool) bool {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	if v.Type() != cty.Bool {
		n.wrong(at, name, "true or false")
		return fallback
	}
	return v.True()
}

// count reads a whole number from lo to hi.
func (n *node) count(name string, fallback, lo, hi int64) int64 {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	i, whole := wholeNumber(v)
	if !whole || i < lo || i > hi {
		n.wrong(at, name, fmt.Sprintf("a whole number from %d to %d", lo, hi))
		return fallback
	}
	return i
}

// share reads a number from 0 to hi.
func (n *node) share(name string, fallback, hi float64) float64 {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	if v.Type() == cty.Number {
		if f, _ := v.AsBigFloat().Float64(); f >= 0 && f <= hi {
			return f
		}
	}
	n.wrong(at, name, fmt.Sprintf("a number from 0 to %g", hi))
	return fallback
}

func wholeNumber(v cty.Value) (int64, bool) {
	if v.Type() != cty.Number {
		return 0, false
	}
	i, acc := v.AsBigFloat().Int64()
	return i, acc == big.Exact
}

// units of a size; SI and IEC, and the bare letters as IEC.
var units = []struct {
	name string
	n    int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"B", 1},
}

// size reads octets.
func (n *node) size(name string, fallback, lo, hi int64) int64 {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	i, whole := wholeNumber(v)
	if v.Type() == cty.String {
		i, whole = parseSize(v.AsString())
	}
	if !whole || i < lo || i > hi {
		n.wrong(at, name, fmt.Sprintf(`a size from %d to %d octets, such as 52428800 or "50MiB"`, lo, hi))
		return fallback
	}
	return i
}

func parseSize(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	factor := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = strings.TrimSpace(rest), u.n
			break
		}
	}
	i, err := strconv.ParseInt(s, 10, 64)
	if err != nil || i < 0 || i > (1<<62)/factor {
		return 0, false
	}
	return i * factor, true
}

// duration reads a text such as "60s".
func (n *node) duration(name string, fallback, lo, hi time.Duration) time.Duration {
	v, at, ok := n.value(name)
	if !ok {
		return fallback
	}
	if v.Type() == cty.String {
		if d, err := ParseDuration(v.AsString()); err == nil && d >= lo && d <= hi {
			return d
		}
	}
	n.wrong(at, name, fmt.Sprintf(`a duration from %s to %s in quotes, such as "90s" or "5m"`, lo, hi))
	return fallback
}

// ParseDuration is time.ParseDuration with days in front: "2d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of days", days)
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || rest[0] == '+' {
		return 0, fmt.Errorf("%q is no time after the days", rest)
	}
	return d + more, nil
}

// elements reads a list of strings and the place of each; a single string is a
// list of one.
func (n *node) elements(name string) (list []string, places []hcl.Range) {
	v, at, ok := n.value(name)
	if !ok {
		return nil, nil
	}
	if v.Type() == cty.String {
		return []string{v.AsString()}, []hcl.Range{at}
	}
	if list, ok = stringsOf(v); !ok {
		n.wrong(at, name, `a list of texts, such as ["a", "b"]`)
		return nil, nil
	}
	tuple, _ := n.body.Attributes[name].Expr.(*hclsyntax.TupleConsExpr)
	for i := range list {
		place := at
		if tuple != nil && len(tuple.Exprs) == len(list) {
			place = tuple.Exprs[i].Range()
		}
		places = append(places, place)
	}
	return list, places
}

// keys are the places of a map's keys, in order. What lies in an inner map has the
// path's names joined by dots. A key that is there twice is a fault: the first
// value would silently be lost.
func (n *node) keys(name string, same func(string) string) map[string]hcl.Range {
	places := map[string]hcl.Range{}
	if a := n.body.Attributes[name]; a != nil {
		n.r.keys(a.Expr, "", same, places)
	}
	return places
}

func (r *reader) keys(expr hclsyntax.Expression, prefix string, same func(string) string, places map[string]hcl.Range) {
	obj, ok := expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return
	}
	for _, item := range obj.Items {
		key, diags := item.KeyExpr.Value(r.eval)
		if diags.HasErrors() || key.Type() != cty.String || key.IsNull() || !key.IsKnown() {
			continue // reported with the map's value
		}
		name := same(prefix + key.AsString())
		at := item.KeyExpr.Range()
		if first, ok := places[name]; ok {
			r.fault(at, name+" is there twice", "The first is at "+place(first)+"; keep one of them.")
			continue
		}
		places[name] = at
		r.keys(item.ValueExpr, name+".", same, places)
	}
}

func stringsOf(v cty.Value) (list []string, ok bool) {
	if t := v.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return nil, false
	}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			return nil, false
		}
		list = append(list, e.AsString())
	}
	return list, true
}

// networks reads a list of CIDR networks and addresses.
func (n *node) networks(name string) (nets []netip.Prefix) {
	list, places := n.elements(name)
	for i, s := range list {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil:
			n.r.fault(places[i], strconv.Quote(s)+" is not a network", `Write an address or a network, such as "192.0.2.0/24" or "2001:db8::/32".`)
		case p.Addr().Is4In6():
			n.r.fault(places[i], strconv.Quote(s)+" would match nobody", "Clients of IPv4 are known by their IPv4 address; write "+strconv.Quote(p.Addr().Unmap().String())+" or its network.")
		case p != p.Masked():
			n.r.fault(places[i], strconv.Quote(s)+" has bits after its prefix", "Write "+strconv.Quote(p.Masked().String())+" for the network, or "+strconv.Quote(p.Addr().String())+" for the one address.")
		default:
			nets = append(nets, p)
		}
	}
	return nets
}

// fewNetworks reads networks that are given a privilege, so that they cannot be
// most of the world: an open relay begins with one digit too few.
func (n *node) fewNetworks(name, privilege string) []netip.Prefix {
	nets := n.networks(name)
	for _, p := range nets {
		least := 8 // 10.0.0.0/8 is the largest private network, fc00::/7 that of IPv6
		if p.Addr().Is6() {
			least = 7
		}
		if p.Bits() < least {
			n.r.fault(n.at(name), p.String()+" is too much of the world", "Every host in it "+privilege+". Write the networks that are yours.")
		}
	}
	return nets
}

// children are the blocks of a kind.
func (n *node) children(kind string) (blocks []*hclsyntax.Block) {
	n.blocks = append(n.blocks, kind)
	for _, b := range n.body.Blocks {
		if b.Type == kind {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// only is the single block of a kind, or nil.
func (n *node) only(kind string) *node {
	blocks := n.children(kind)
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks[1:] {
		n.r.fault(b.DefRange(), "a second "+kind+" block", "There may be one in "+n.what+"; the first is at "+place(blocks[0].DefRange())+".")
	}
	if len(blocks[0].Labels) > 0 {
		n.r.fault(blocks[0].LabelRanges[0], kind+" has no name", "Write "+kind+" { … }.")
	}
	return n.r.node(blocks[0].Body, kind)
}

// named calls read for each block of a kind, which must have a name of its own.
func (n *node) named(kind string, read func(c *node, name string, at hcl.Range)) {
	seen := map[string]hcl.Range{}
	for _, b := range n.children(kind) {
		if len(b.Labels) != 1 || b.Labels[0] == "" {
			n.r.fault(b.DefRange(), kind+" needs one name", "Write "+kind+` "NAME" { … }.`)
			continue
		}
		name := b.Labels[0]
		if first, ok := seen[name]; ok {
			n.r.fault(b.LabelRanges[0], "a second "+kind+" "+strconv.Quote(name), "The first is at "+place(first)+"; give this one another name.")
			continue
		}
		seen[name] = b.DefRange()
		read(n.r.node(b.Body, kind+" "+strconv.Quote(name)), name, b.DefRange())
	}
}

// done reports keys and blocks that nobody asked for.
func (n *node) done() {
	for _, a := range sortedAttrs(n.body) {
		if slices.Contains(n.attrs, a.Name) {
			continue
		}
		if slices.Contains(n.blocks, a.Name) {
			n.r.fault(a.NameRange, a.Name+" is a block", "Write "+a.Name+" { … } without an equals sign.")
			continue
		}
		n.r.fault(a.NameRange, "unknown key "+a.Name, "The keys of "+n.what+" are "+strings.Join(sorted(n.attrs), ", ")+"."+meant(a.Name, n.attrs))
	}
	for _, b := range n.body.Blocks {
		switch {
		case slices.Contains(n.blocks, b.Type):
		case slices.Contains(n.attrs, b.Type):
			n.r.fault(b.TypeRange, b.Type+" is a key", "Write "+b.Type+" = … with an equals sign.")
		case len(n.blocks) == 0:
			n.r.fault(b.TypeRange, "unknown block "+b.Type, "There are no blocks in "+n.what+"."+meant(b.Type, n.attrs))
		default:
			n.r.fault(b.TypeRange, "unknown block "+b.Type, "The blocks of "+n.what+" are "+strings.Join(sorted(n.blocks), ", ")+"."+meant(b.Type, n.blocks))
		}
	}
}

func sortedAttrs(body *hclsyntax.Body) []*hclsyntax.Attribute {
	var all []*hclsyntax.Attribute
	for _, a := range body.Attributes {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *hclsyntax.Attribute) int { return a.SrcRange.Start.Byte - b.SrcRange.Start.Byte })
	return all
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

// place is "FILE:LINE".
func place(r hcl.Range) string { return fmt.Sprintf("%s:%d", filepath.Base(r.Filename), r.Start.Line) }

func oneOf(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}

// meant suggests the word that is nearest to what was written.
func meant(got string, words []string) string {
	best, dist := "", 3
	for _, w := range words {
		if d := distance(got, w); d < dist && d < len(w) {
			best, dist = w, d
		}
	}
	if best == "" {
		return ""
	}
	return " Did you mean " + best + "?"
}

// distance is how many letters must be changed, added or dropped between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

func emptyBody() *hclsyntax.Body { return &hclsyntax.Body{} }
