package dns

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what is taken from one message.
const (
	udpSize    = 1232 // fits into any path's MTU (DNS flag day 2020)
	maxRecords = 256
	maxChain   = 16 // CNAMEs
)

// typeCode maps the types that a Question may name to their numbers (0: unknown).
func typeCode(name string) uint16 {
	switch name {
	case "A", "AAAA", "MX", "TXT", "PTR", "NS", "CNAME", "SOA", "SRV", "TLSA":
		return dns.StringToType[name]
	}
	return 0
}

// newQuery makes the message that asks for name, which is canonical.
func newQuery(name string, code uint16, edns, trustAD bool) *dns.Msg {
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.RecursionDesired = true
	m.AuthenticatedData = trustAD // RFC 6840 §5.7: "tell me, without the signatures"
	m.Question = []dns.Question{{Name: wireName(name), Qtype: code, Qclass: dns.ClassINET}}
	if edns {
		m.SetEdns0(udpSize, false)
	}
	return m
}

// wireName writes a name so that the library reads each octet as itself.
func wireName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "\\%03d", c)
		}
	}
	return b.String() + "."
}

// plainName is wireName's inverse, in lower case and without the last dot; the
// root stays ".".
func plainName(s string) string {
	if s == "." {
		return s
	}
	return strings.ToLower(strings.TrimSuffix(unescape(s), "."))
}

// unescape undoes the presentation format's \DDD and \X (RFC 1035 §5.1).
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b = append(b, s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			b = append(b, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
			continue
		}
		i++
		b = append(b, s[i])
	}
	return string(b)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// record is a resource record's data as Answer has it.
func record(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	case *dns.MX:
		return fmt.Sprintf("%d %s", rr.Preference, plainName(rr.Mx))
	case *dns.TXT:
		var b strings.Builder
		for _, s := range rr.Txt {
			b.WriteString(unescape(s))
		}
		return b.String()
	case *dns.PTR:
		return plainName(rr.Ptr)
	case *dns.NS:
		return plainName(rr.Ns)
	case *dns.CNAME:
		return plainName(rr.Target)
	case *dns.SRV:
		return fmt.Sprintf("%d %d %d %s", rr.Priority, rr.Weight, rr.Port, plainName(rr.Target))
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// readAnswer judges a reply to a question for name, which is canonical. Rcodes
// that only say that the server cannot or will not answer are Temporary.
func readAnswer(m *dns.Msg, name string, code uint16, trustAD bool) Answer {
	a := Answer{Name: name, Authentic: trustAD && m.AuthenticatedData}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return Answer{Name: name, Err: fmt.Errorf("server answered %s", dns.RcodeToString[m.Rcode])}
	}
	ttl := uint32(1<<31 - 1) // RFC 2181 §8
	if code != dns.TypeCNAME {
		for range maxChain {
			next, t, ok := target(m.Answer, a.Name)
			if !ok {
				break
			}
			a.Name, ttl = next, min(ttl, t)
		}
		if _, _, more := target(m.Answer, a.Name); more {
			return Answer{Name: name, Err: fmt.Errorf("more than %d CNAMEs in a row", maxChain)}
		}
	}
	if m.Rcode == dns.RcodeSuccess {
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Rrtype != code || h.Class != dns.ClassINET || plainName(h.Name) != a.Name || len(a.Records) == maxRecords {
				continue
			}
			a.Records = append(a.Records, record(rr))
			ttl = min(ttl, h.Ttl)
		}
		if len(a.Records) > 0 {
			a.Status, a.TTL = Found, time.Duration(ttl)*time.Second
			return a
		}
	}
	// RFC 2308 §2, §5: the rcode belongs to the end of the chain, and the SOA
	// record in the authority section says how long to believe it.
	a.Status = NoData
	if m.Rcode == dns.RcodeNameError {
		a.Status = NXDomain
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			a.TTL = time.Duration(min(ttl, soa.Hdr.Ttl, soa.Minttl)) * time.Second
		}
	}
	return a
}

// target finds where name's CNAME among the records points.
func target(rrs []dns.RR, name string) (next string, ttl uint32, ok bool) {
	for _, rr := range rrs {
		if c, is := rr.(*dns.CNAME); is && c.Hdr.Class == dns.ClassINET && plainName(c.Hdr.Name) == name {
			return plainName(c.Target), c.Hdr.Ttl, true
		}
	}
	return "", 0, false
}
