package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/wafermail/wafer/core/relay/relaytest"
)

// nameServer answers from a zone on a port of loopback. Names that it has nothing of
// do not exist.
func nameServer(t *testing.T, zone map[string][]string) (address string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
		records, ok := zone[name]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, r := range records {
			if r == "SERVFAIL" {
				m.Rcode = dns.RcodeServerFailure
				continue
			}
			rr, err := dns.NewRR(q.Question[0].Name + " 60 IN " + r)
			if err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m) // who does not hear it asks again
	})}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}

// TestOutThroughDNS sends to domains whose hosts fail in every way, found through a
// name server: each message arrives once, or comes back with the reason.
func TestOutThroughDNS(t *testing.T) {
	var mu sync.Mutex
	count := map[string]int{}
	first := func(what string) bool {
		mu.Lock()
		defer mu.Unlock()
		count[what]++
		return count[what] == 1
	}
	once := func(at, reply string) func(int, string) string {
		return func(_ int, line string) string {
			if strings.HasPrefix(line, at) && first(reply+at) {
				return reply
			}
			return ""
		}
	}
	broken := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no certificate") }}
	utf8 := []string{"PIPELINING", "8BITMIME", "SMTPUTF8"}
	rows := []struct {
		domain string
		b      *relaytest.Behaviour // nil: nobody listens
		mx     []string             // "" is the row's own host
		to     string               // local part
		sent   int                  // messages that arrive
		back   string               // in the notice, "" if there is none
	}{
		{"good.test", &relaytest.Behaviour{Extensions: utf8}, []string{"10 mx.good.test."}, "x", 1, ""},
		{"direct.test", &relaytest.Behaviour{}, nil, "x", 1, ""},
		{"deadfirst.test", &relaytest.Behaviour{}, []string{"10 dead.test.", "20 mx.deadfirst.test."}, "x", 1, ""},
		{"gone-first.test", &relaytest.Behaviour{}, []string{"10 no.such.test.", "20 mx.gone-first.test."}, "x", 1, ""},
		{"nullmx.test", nil, []string{"0 ."}, "x", 0, "5.1.10"},
		{"loop.test", nil, []string{"10 " + testHost + "."}, "x", 0, "5.4.6"},
		{"greylist.test", &relaytest.Behaviour{Reply: once("RCPT", "450 4.2.0 come back")}, nil, "x", 1, ""},
		{"refuses.test", &relaytest.Behaviour{Reply: func(_ int, line string) string {
			if strings.HasPrefix(line, "RCPT") {
				return "550-5.1.1 there is nobody\n550 5.1.1 of that name"
			}
			return ""
		}}, nil, "x", 0, "of that name"},
		{"drops-data.test", &relaytest.Behaviour{After: func(n int) bool { return first("mid-data") }}, nil, "x", 1, ""},
		{"drops-at-data.test", &relaytest.Behaviour{Reply: once("DATA", "drop")}, nil, "x", 1, ""},
		{"busy.test", &relaytest.Behaviour{Reply: once("MAIL", "421 4.3.2 too busy")}, nil, "x", 1, ""},
		{"tls-broken.test", &relaytest.Behaviour{TLS: broken}, nil, "x", 1, ""},
		{"ascii.test", &relaytest.Behaviour{Extensions: []string{"8BITMIME"}}, nil, "bób", 0, "5.6.7"},
		{"utf8.test", &relaytest.Behaviour{Extensions: utf8}, nil, "bób", 1, ""},
		{"small.test", &relaytest.Behaviour{Extensions: []string{"SIZE 100"}}, nil, "x", 0, "5.3.4"},
		{"sevenbit.test", &relaytest.Behaviour{Extensions: []string{"PIPELINING"}}, nil, "x", 1, ""},
		{"no-such-domain.test", nil, nil, "x", 0, "5.1.2"},
	}
	zone := map[string][]string{"dead.test": {"A 127.0.8.250"}, testHost: {"A 127.0.0.1"}}
	servers := map[string]*relaytest.Server{}
	port := ""
	for i, r := range rows {
		if r.mx != nil {
			zone[r.domain] = nil
			for _, mx := range r.mx {
				zone[r.domain] = append(zone[r.domain], "MX "+mx)
			}
		}
		if r.b == nil {
			continue
		}
		at := fmt.Sprintf("127.0.8.%d", i+1)
		host := r.domain
		if r.mx != nil {
			host = "mx." + r.domain
		}
		zone[host] = append(zone[host], "A "+at)
		if port == "" {
			port = "0"
		}
		s := relaytest.Start(t, *r.b, at+":"+port)
		servers[r.domain] = s
		port = fmt.Sprint(s.Addr().Port())
	}
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, top: fmt.Sprintf("resolvers = [%q]\nqueue {\n  retry_min = \"1s\"\n  retry_max = \"2s\"\n}\nrelay {\n  port    = %s\n  mta_sts = false\n}\n", nameServer(t, zone), port)})
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	for _, r := range rows {
		options := ""
		if !isASCII(r.to) {
			options = " SMTPUTF8"
		}
		if code, text, err := p.deliver(account, []string{r.to + "@" + r.domain}, options, "Subject: to "+r.domain+"\r\n\r\n"+strings.Repeat("body ü\r\n", 50)); err != nil || code != 250 {
			t.Fatalf("%s: %d %s (%v)", r.domain, code, text, err)
		}
	}
	s.emptiedIn(2 * time.Minute)
	s.stop()
	if m := servers["sevenbit.test"].Messages(); len(m) != 1 || !strings.Contains(m[0].Data, "body =C3=BC\r\n") {
		t.Errorf("a host of 7 bits was sent %+v", m)
	}
	notices := textsIn(t, w.maildir("ann"))
	for _, r := range rows {
		if far := servers[r.domain]; far != nil && len(far.Messages()) != r.sent {
			t.Errorf("%s has %d messages, want %d", r.domain, len(far.Messages()), r.sent)
		}
		var back []string
		for _, n := range notices {
			if strings.Contains(n, "Subject: to "+r.domain+"\r\n") {
				back = append(back, n)
			}
		}
		switch {
		case r.back == "" && len(back) > 0:
			t.Errorf("%s came back: %s", r.domain, back[0])
		case r.back != "" && (len(back) != 1 || !strings.Contains(back[0], r.back)):
			t.Errorf("%s: %d notices, want one with %q: %q", r.domain, len(back), r.back, back)
		}
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// emptiedIn is emptied with more patience.
func (s *server) emptiedIn(most time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(most); s.queueLen() > 0; {
		if time.Now().After(end) {
			s.t.Fatalf("%d messages stay in the queue", s.queueLen())
		}
		s.flush()
		wait(100*time.Millisecond, s.done)
	}
}
