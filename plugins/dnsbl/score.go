package main

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// tally is what all lists said.
type tally struct {
	score    int64
	hits     []int // domains that added to the score or took from it
	blame    int   // the domain with the greatest weight above 0, -1 if none
	answer   string
	weight   int64 // of the blamed site
	up, down int64 // what lists that did not answer could have added, at most and at least
	silent   int   // a domain that did not answer, -1 if none
}

func (s *scorer) judge(e *sdk.Event) sdk.Verdict {
	sub, ok := find(e, s.query)
	if !ok {
		return sdk.Next()
	}
	t, err := s.ask(e, sub)
	if err != nil {
		return sdk.Fail("ask lists about " + sub.what + ": " + err.Error())
	}
	v := s.decide(e, sub, &t)
	if t.score != 0 {
		v = v.AddScore(float64(t.score))
	}
	for _, i := range t.hits {
		v = v.Tag("dnsbl:" + s.shown[i])
	}
	return v
}

// ask asks all lists at once. A list whose question would be too long for DNS
// cannot have an entry.
func (s *scorer) ask(e *sdk.Event, sub subject) (tally, error) {
	t := tally{blame: -1, silent: -1}
	var questions []sdk.Question
	var asked []int
	for i, domain := range s.domains {
		if name := sub.label + domain; len(name) <= 253 {
			questions, asked = append(questions, sdk.Question{Type: "A", Name: name}), append(asked, i)
		}
	}
	if len(questions) == 0 {
		return t, nil
	}
	answers, err := e.DNS(questions...)
	switch {
	case err == sdk.ErrTimeout, err == sdk.ErrTemporary:
		answers = make([]sdk.Answer, len(questions))
		for i := range answers {
			answers[i].Status = sdk.DNSTemp
		}
	case err != nil:
		return t, err
	}
	for i, a := range answers {
		s.add(e, &t, asked[i], a)
	}
	return t, nil
}

// add adds what the list with this index answered.
func (s *scorer) add(e *sdk.Event, t *tally, index int, a sdk.Answer) {
	if a.Status == sdk.DNSTemp {
		t.silent = index
		for _, site := range s.sites[index] {
			t.up, t.down = t.up+max(site.weight, 0), t.down+min(site.weight, 0)
		}
		e.Metric("no-answer", 1)
		return
	}
	var codes [][4]byte
	for _, record := range a.Records {
		addr, err := netip.ParseAddr(record)
		if err != nil || !addr.Is4() {
			continue
		}
		switch code := addr.As4(); {
		case code[0] != 127: // a domain for sale answers everything
			e.Log(sdk.Warn, "list "+s.shown[index]+" answered "+record+", which no list does: not counted")
			e.Metric("strange-answer", 1)
		case code[1] == 255 && code[2] == 255:
			e.Log(sdk.Warn, "list "+s.shown[index]+" refused the question with "+record+": not counted")
			e.Metric("refused-question", 1)
		default:
			codes = append(codes, code)
		}
	}
	hit := false
	for _, site := range s.sites[index] {
		code, ok := match(site.filter, codes)
		if !ok {
			continue
		}
		hit = true
		t.score += site.weight
		if site.weight > t.weight {
			t.blame, t.weight, t.answer = index, site.weight, netip.AddrFrom4(code).String()
		}
	}
	if hit {
		t.hits = append(t.hits, index)
	}
}

// match returns the first of codes that f lets through.
func match(f *filter, codes [][4]byte) (code [4]byte, ok bool) {
	for _, code := range codes {
		if f == nil || f.has(code) {
			return code, true
		}
	}
	return code, false
}

// decide turns a score into an answer. With on_temp = "defer" lists that did not
// answer matter if any answer of theirs could change the outcome.
func (s *scorer) decide(e *sdk.Event, sub subject, t *tally) sdk.Verdict {
	switch {
	case t.score >= s.threshold:
		e.Metric("listed", 1)
		if s.action == actionTag {
			return sdk.Next().Tag("dnsbl").Because("dnsbl")
		}
		if s.deferTrouble && s.action == actionReject && t.score+t.down < s.threshold {
			return sdk.Defer(450, "4.7.1", s.trouble(sub, t)).Because("dnsbl-tempfail")
		}
		return s.refuse(e, sub, t)
	case s.allow < 0 && t.score <= s.allow:
		e.Metric("allowed", 1)
		// A list of good clients says nothing about who may relay.
		if e.Stage() == sdk.Rcpt && e.Fact(sdk.FactRecipientClass) == sdk.ClassRelay {
			return sdk.Next()
		}
		return sdk.Accept().Because("dnsbl-allowed")
	case !s.deferTrouble || t.silent < 0 || s.action == actionTag:
		return sdk.Next()
	case t.score+t.up >= s.threshold:
		return sdk.DeferIfPermit(450, "4.7.1", s.trouble(sub, t)).Because("dnsbl-tempfail")
	case s.allow < 0 && t.score+t.down <= s.allow:
		return sdk.DeferIfReject(450, "4.7.1", s.trouble(sub, t)).Because("dnsbl-tempfail")
	}
	return sdk.Next()
}

// longest is how much of what a peer chose a reply repeats, so that the list
// shows behind it.
const longest = 200

func (s *scorer) trouble(sub subject, t *tally) string {
	return "<" + sub.what[:min(len(sub.what), longest)] + ">: " + string(sub.kind) + " rejected: Service unavailable; no answer from " + s.shown[t.silent]
}

func (s *scorer) refuse(e *sdk.Event, sub subject, t *tally) sdk.Verdict {
	template, reason := s.text, ""
	if s.wantsReason {
		if reason = explanation(e, sub.label+s.domains[t.blame]); reason == "" {
			template = strings.ReplaceAll(template, "; %t", "")
		}
	}
	text := strings.NewReplacer(
		"%k", string(sub.kind), "%c", sub.what[:min(len(sub.what), longest)], "%d", s.shown[t.blame],
		"%a", t.answer, "%t", reason, "%s", strconv.FormatInt(t.score, 10), "%%", "%",
	).Replace(template)
	if s.action == actionDefer {
		return sdk.Defer(s.code, s.enhanced, text).Because("dnsbl")
	}
	return sdk.Reject(s.code, s.enhanced, text).Because("dnsbl")
}

// explanation is the list's text about an entry, "" if it has none now.
func explanation(e *sdk.Event, name string) string {
	answers, err := e.DNS(sdk.Question{Type: "TXT", Name: name})
	if err != nil || len(answers) != 1 || answers[0].Status != sdk.DNSOK {
		return ""
	}
	return strings.Join(answers[0].Records, " / ")
}
