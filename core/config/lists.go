package config

import (
	"path/filepath"
	"slices"
	"strconv"

	"github.com/hashicorp/hcl/v2"
)

// List is a list block: a table that checks may look things up in.
type List struct {
	Name    string
	Type    string            // "table", "cidr" or "regexp"
	File    string            // read again when it changes; "" : Entries
	Entries map[string]string // keys to values; type table only
	Where   string
}

var listTypes = []string{"table", "cidr", "regexp"}

// list reads one list block.
func (r *reader) list(n *node, name string, at hcl.Range) List {
	l := List{Name: name, Type: n.choice("type", "table", listTypes...), Where: place(at)}
	if !isWord(name) {
		r.fault(at, strconv.Quote(name)+" cannot name a list", "Write letters, digits, - and _ only.")
	}
	if l.File = n.text("file", ""); l.File != "" {
		if !filepath.IsAbs(l.File) {
			l.File = filepath.Join(r.dir, l.File)
		}
		if err := readable(l.File); err != nil {
			r.fault(n.at("file"), "list cannot be read", cause(l.File, err)+" Write the path of a file with a key and a value on each line.")
		}
	}
	l.Entries = map[string]string{}
	values, _ := n.elements("values")
	for _, v := range values {
		l.Entries[v] = ""
	}
	r.entries(n, &l)
	sources := 0
	for _, key := range []string{"file", "values", "entries"} {
		if n.body.Attributes[key] != nil {
			sources++
		}
	}
	switch {
	case sources != 1:
		r.fault(at, n.what+" needs one source", `Write one of file = "…", values = ["…"], entries = { "…" = "…" }.`)
	case l.Type != "table" && l.File == "":
		r.fault(n.at("type"), "a list of type "+l.Type+" is a file", `Its lines have an order, so write file = "…".`)
	}
	n.done()
	return l
}

// entries reads keys with values.
func (r *reader) entries(n *node, l *List) {
	v, at, ok := n.value("entries")
	if !ok {
		return
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, "entries", `a map, such as { "192.0.2.1" = "REJECT" }`)
		return
	}
	places := n.keys("entries", func(key string) string { return key })
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		key, err := k.AsString(), error(nil)
		if l.Entries[key], err = scalar(e); err != nil {
			if own, ok := places[key]; ok {
				at = own
			}
			r.fault(at, "the value of "+strconv.Quote(key)+" is "+err.Error(), "Write a text.")
		}
	}
}

// readLists reads the list blocks of a file.
func (r *reader) readLists(c *Config, n *node) {
	n.named("list", func(n *node, name string, at hcl.Range) {
		for _, l := range c.Lists {
			if l.Name == name {
				r.fault(at, "a second list "+strconv.Quote(name), "The first is at "+l.Where+"; give this one another name.")
				return
			}
		}
		c.Lists = append(c.Lists, r.list(n, name, at))
	})
}

// listsOf reads the lists that a check may use; they may be in a file that is
// read later.
func (r *reader) listsOf(n *node, allow []string) []string {
	names, places := n.elements("lists")
	for i, name := range names {
		r.wanted = append(r.wanted, wantedList{name, places[i]})
		if slices.Contains(names[:i], name) {
			r.fault(places[i], "list "+strconv.Quote(name)+" is there twice", "Write it once.")
		}
	}
	if len(names) > 0 && !slices.Contains(allow, "list") {
		r.fault(n.at("lists"), "lists cannot be used without a grant", `Write allow = ["list"] as well.`)
	}
	return names
}

// wantedList is a list that a check names.
type wantedList struct {
	name string
	at   hcl.Range
}

// knownLists reports lists that checks name and nobody defines.
func (r *reader) knownLists(c *Config) {
	var names []string
	for _, l := range c.Lists {
		names = append(names, l.Name)
	}
	for _, w := range r.wanted {
		if slices.Contains(names, w.name) {
			continue
		}
		help := "Write list " + strconv.Quote(w.name) + ` { file = "…" }.`
		if len(names) > 0 {
			help = "The lists are " + oneOf(names) + "." + meant(w.name, names)
		}
		r.fault(w.at, "no list "+strconv.Quote(w.name), help)
	}
}
