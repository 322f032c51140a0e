package config

import (
	"strconv"

	"github.com/zclconf/go-cty/cty"
)

// lists reads a map of texts or lists of texts.
func (n *node) lists(name, example string) map[string][]string {
	v, at, ok := n.value(name)
	if !ok {
		return nil
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, name, "a map, such as "+example)
		return nil
	}
	out := map[string][]string{}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if e.Type() == cty.String && !e.IsNull() {
			out[k.AsString()] = []string{e.AsString()}
			continue
		}
		list, ok := stringsOf(e)
		if !ok {
			n.wrong(at, name, "a map of texts or lists of texts, such as "+example)
			return nil
		}
		out[k.AsString()] = list
	}
	return out
}

// tables reads a map of maps of texts.
func (n *node) tables(name string) map[string]map[string]string {
	v, at, ok := n.value(name)
	if !ok {
		return nil
	}
	example := name + ` = { greylist = { "KEY" = "VALUE" } }`
	out := map[string]map[string]string{}
	isMap := func(v cty.Value) bool { return !v.IsNull() && (v.Type().IsObjectType() || v.Type().IsMapType()) }
	if !isMap(v) {
		n.wrong(at, name, "a map of maps by check, such as "+example)
		return nil
	}
	for it := v.ElementIterator(); it.Next(); {
		k, inner := it.Element()
		if !isMap(inner) {
			n.wrong(at, name, "a map of maps by check, such as "+example)
			return nil
		}
		out[k.AsString()] = map[string]string{}
		for jt := inner.ElementIterator(); jt.Next(); {
			key, e := jt.Element()
			s, err := scalar(e)
			if err != nil {
				n.r.fault(at, "the value of "+strconv.Quote(key.AsString())+" is "+err.Error(), "Write a text, such as "+example+".")
				continue
			}
			out[k.AsString()][key.AsString()] = s
		}
	}
	return out
}
