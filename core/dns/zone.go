package dns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Zone answers from memory as a recursive server would. It serves tests and
// rehearsals without a network. A Zone is not changed once it is in use.
//
// Names map to types, types to records in the form of Answer or of a zone file.
// Names that exist only as parents of others have no data; "*.name" is a
// wildcard (RFC 4592). Two more "types" make a name misbehave: "RCODE" with
// "SERVFAIL", "REFUSED", "NXDOMAIN" and so on answers every type with that,
// "RCODE:MX" answers one; "DROP" instead of an rcode stands for a server that
// never replies, and answers as its timeout would, at once. "AD" with any
// value marks a name's answers as authentic.
type Zone struct {
	names   map[string]map[string][]string
	parents map[string]bool // every name and every ancestor
}

// zoneTTL is the TTL of everything in a Zone.
const zoneTTL = 5 * time.Minute

// NewZone returns a Zone that holds names. Names are taken in any case and with
// or without the last dot.
func NewZone(names map[string]map[string][]string) *Zone {
	z := &Zone{names: make(map[string]map[string][]string), parents: make(map[string]bool)}
	for name, types := range names {
		for kind, records := range types {
			for _, r := range records {
				z.add(name, kind, r)
			}
		}
	}
	return z
}

func (z *Zone) add(name, kind, rec string) {
	name = plainName(name)
	types := z.names[name]
	if types == nil {
		types = make(map[string][]string)
		z.names[name] = types
	}
	types[kind] = append(types[kind], tidy(kind, rec))
	for p := name; p != ""; {
		z.parents[p] = true
		_, p, _ = strings.Cut(p, ".")
	}
}

// tidy brings a record into the form that Answer has.
func tidy(kind, rec string) string {
	switch kind {
	case "MX", "PTR", "NS", "CNAME", "SRV":
		if strings.HasSuffix(rec, " .") || rec == "." {
			return rec
		}
		return strings.ToLower(strings.TrimSuffix(rec, "."))
	}
	return rec
}

// LoadZone reads a zone from a file: JSON if its name ends in ".json" (an
// object of names, each an object of types, each a string or a list of strings;
// names that begin with "_" and hold a string are comments), else a master file
// (RFC 1035 §5), in which $INCLUDE is not allowed and the origin is the root.
func LoadZone(path string) (*Zone, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load zone: %w", err)
	}
	defer h.Close() // only read
	read := ReadZone
	if filepath.Ext(path) == ".json" {
		read = ReadZoneJSON
	}
	z, err := read(io.LimitReader(h, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("load zone %s: %w", path, err)
	}
	return z, nil
}

// ReadZone reads a master file; see LoadZone.
func ReadZone(r io.Reader) (*Zone, error) {
	z := NewZone(nil)
	p := dns.NewZoneParser(r, ".", "")
	p.SetDefaultTTL(uint32(zoneTTL / time.Second))
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		z.add(rr.Header().Name, dns.TypeToString[rr.Header().Rrtype], record(rr))
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	return z, nil
}

// ReadZoneJSON reads a zone as JSON; see LoadZone.
func ReadZoneJSON(r io.Reader) (*Zone, error) {
	var names map[string]json.RawMessage
	if err := json.NewDecoder(r).Decode(&names); err != nil {
		return nil, err
	}
	z := NewZone(nil)
	for name, raw := range names {
		if strings.HasPrefix(name, "_") && len(raw) > 0 && raw[0] == '"' {
			continue
		}
		var types map[string]json.RawMessage
		if err := json.Unmarshal(raw, &types); err != nil {
			return nil, fmt.Errorf("name %s: %w", name, err)
		}
		for kind, raw := range types {
			var records []string
			var one string
			if json.Unmarshal(raw, &one) == nil {
				records = []string{one}
			} else if err := json.Unmarshal(raw, &records); err != nil {
				return nil, fmt.Errorf("name %s, type %s: %w", name, kind, err)
			}
			for _, rec := range records {
				z.add(name, kind, rec)
			}
		}
	}
	return z, nil
}

// Known answers everything: a Zone never waits.
func (z *Zone) Known(q Question) (Answer, bool) { return z.Lookup(context.Background(), q), true }

// Lookup implements Resolver.
func (z *Zone) Lookup(ctx context.Context, q Question) Answer {
	name, ok := q.canonical()
	if !ok {
		return Answer{Status: NXDomain, Err: errors.New("not a domain name")}
	}
	if err := ctx.Err(); err != nil {
		return Answer{Name: name, Err: err}
	}
	authentic := true
	for range maxChain {
		types, exists := z.find(name)
		a := Answer{Name: name, TTL: zoneTTL, Authentic: authentic && types["AD"] != nil}
		authentic = a.Authentic
		for _, key := range []string{"RCODE:" + q.Type, "RCODE"} {
			if rcode := types[key]; len(rcode) > 0 {
				return misbehave(a, rcode[0])
			}
		}
		if records := types[q.Type]; len(records) > 0 {
			a.Status, a.Records = Found, append([]string(nil), records...)
			return a
		}
		if cname := types["CNAME"]; len(cname) > 0 {
			name = cname[0]
			continue
		}
		a.Status = NXDomain
		if exists {
			a.Status = NoData
		}
		return a
	}
	return Answer{Name: name, Err: fmt.Errorf("more than %d CNAMEs in a row", maxChain)}
}

// find returns what name has, by itself or through the wildcard at its closest
// existing ancestor.
func (z *Zone) find(name string) (types map[string][]string, exists bool) {
	if types, ok := z.names[name]; ok || z.parents[name] {
		return types, true
	}
	for parent := name; parent != ""; {
		_, parent, _ = strings.Cut(parent, ".")
		if types, ok := z.names["*."+parent]; ok {
			return types, true
		}
		if z.parents[parent] {
			return nil, false
		}
	}
	return nil, false
}

func misbehave(a Answer, rcode string) Answer {
	switch rcode {
	case "NXDOMAIN":
		a.Status = NXDomain
	case "NOERROR":
		a.Status = NoData
	case "DROP":
		a.Err = context.DeadlineExceeded
	default:
		a.Err = fmt.Errorf("server answered %s", rcode)
	}
	return a
}
