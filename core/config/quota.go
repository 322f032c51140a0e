package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// quota reads what the users of a domain may store.
func (r *reader) quota(n *node) (q Quota) {
	if n == nil {
		return q
	}
	q.Storage = n.size("storage", 0, 0, 1<<60)
	q.Messages = n.count("messages", 0, 0, 1<<40)
	q.GracePercent = 10
	if text := n.text("grace", "10%"); strings.HasSuffix(text, "%") {
		p, err := strconv.Atoi(strings.TrimSuffix(text, "%"))
		if err != nil || p < 0 || p > 1000 {
			r.fault(n.at("grace"), strconv.Quote(text)+" is no percentage", `Write grace = "10%", or a size such as "50MiB": by that much one message may go beyond the limit.`)
		}
		q.GracePercent = p
	} else if size, ok := parseSize(text); !ok || size < 0 {
		r.fault(n.at("grace"), strconv.Quote(text)+" is no size", `Write grace = "10%", or a size such as "50MiB".`)
	} else {
		q.Grace, q.GracePercent = size, 0
	}
	rules, places := n.elements("rules")
	for i, rule := range rules {
		if _, err := maildir.ParseQuotaRule(rule); err != nil {
			r.fault(places[i], err.Error(), `Write "Trash:storage=+100M", "Archive*:storage=+20%" or "Junk:ignore".`)
			continue
		}
		q.Rules = append(q.Rules, rule)
	}
	q.Warn = n.percents("warn")
	q.Permanent = n.choice("over", "temporary", "temporary", "permanent") == "permanent"
	n.done()
	return q
}

// percents reads a list of percentages.
func (n *node) percents(name string) (list []int) {
	v, at, ok := n.value(name)
	if !ok {
		return nil
	}
	const instead = "a list of whole numbers from 1 to 100, such as [80, 95]"
	if !v.Type().IsTupleType() && !v.Type().IsListType() {
		n.wrong(at, name, instead)
		return nil
	}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		p, whole := wholeNumber(e)
		if !whole || p < 1 || p > 100 {
			n.wrong(at, name, instead)
			return nil
		}
		list = append(list, int(p))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
