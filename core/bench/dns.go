package main

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// nameServer answers what policies ask about the load: the senders' domains have
// a mail server and an SPF policy that the load's clients pass, with an include
// as most have.
type nameServer struct {
	address string
	server  *dns.Server
	done    chan error
}

// startNames starts a name server on a port of loopback.
func startNames() (*nameServer, error) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &nameServer{address: pc.LocalAddr().String(), done: make(chan error, 1)}
	n.server = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(answer)}
	go func() { n.done <- n.server.ActivateAndServe() }()
	return n, nil
}

func (n *nameServer) stop() error {
	if err := n.server.Shutdown(); err != nil {
		return err
	}
	return <-n.done
}

func answer(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) > 0 && strings.HasSuffix(strings.ToLower(q.Question[0].Name), ".slow.test.") {
		return // as name servers do that are down
	}
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	for _, question := range q.Question {
		name := strings.ToLower(question.Name)
		record := ""
		switch {
		case strings.HasSuffix(name, ".far.test."):
			record = farRecord(name, question.Qtype)
		case !strings.HasSuffix(name, ".sender.test.") && !strings.HasSuffix(name, ".client.test."):
			m.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeMX:
			record = "MX 10 mx.sender.test."
		case question.Qtype == dns.TypeA:
			record = "A 127.0.0.1"
		case question.Qtype == dns.TypeTXT && strings.HasPrefix(name, "_spf."):
			record = `TXT "v=spf1 ip4:127.0.0.0/8 ~all"`
		case question.Qtype == dns.TypeTXT && strings.HasSuffix(name, ".sender.test."):
			record = `TXT "v=spf1 ip4:192.0.2.0/24 include:_spf.sender.test -all"`
		}
		if record == "" { // a negative answer is kept for as long as this says (RFC 2308 §5)
			if rr, err := dns.NewRR("test. 300 IN SOA ns.test. hostmaster.test. 1 3600 600 86400 300"); err == nil {
				m.Ns = append(m.Ns, rr)
			}
		} else {
			if rr, err := dns.NewRR(question.Name + " 300 IN " + record); err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(m) // who does not hear it asks again
}

// farRecord is what is known of the hosts that mail is sent to: each name's last
// label before "far.test" says which of them has its mail.
func farRecord(name string, qtype uint16) string {
	labels := strings.Split(strings.TrimSuffix(name, ".far.test."), ".")
	kind := labels[len(labels)-1]
	for i, f := range fars {
		if f == kind && qtype == dns.TypeA && labels[0] == "mx" {
			return "A " + farAddress(i)
		}
	}
	if qtype == dns.TypeMX && labels[0] != "mx" {
		return "MX 10 mx." + kind + ".far.test."
	}
	return ""
}
