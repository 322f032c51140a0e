package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// hostFunction is one function that guests may import.
type hostFunction struct {
	signature string // see funcType.signature
	grant     string // "" for everybody
	call      func(in *instance, mem api.Memory, stack []uint64)
}

// hostFunctions is all of them, by module and name.
var hostFunctions = func() map[string]hostFunction {
	m := map[string]hostFunction{
		abi.Module + "." + abi.ImportLog:   {"iii>", "", hostLog},
		abi.Module + "." + abi.ImportNow:   {">I", "", hostNow},
		abi.Module + "." + abi.ImportGet:   {"iiii>i", "", hostGet},
		abi.Module + "." + abi.ImportDNS:   {"iiii>i", abi.GrantDNS, hostDNS},
		abi.Module + "." + abi.ImportCount: {"iiII>I", abi.GrantCount, hostCount},
	}
	for name, f := range wasiFunctions {
		m[abi.WASI+"."+name] = f
	}
	return m
}()

// maxHostCalls is how many counters one call may touch.
const maxHostCalls = 50

// hostCost is the fuel that octets cost which the host moves for the guest.
func hostCost(octets uint32) int64 { return 50 + int64(octets)/4 }

// charge takes fuel for work that the host does, and ends a guest whose stop
// flag is up.
func (in *instance) charge(units int64) {
	in.fuel.Set(uint64(int64(in.fuel.Get()) - units))
	if in.guard.stopped() {
		panic(errStopped)
	}
}

func result32(stack []uint64, v int32) { stack[0] = uint64(uint32(v)) }

// hostLog is log(level, p, n).
func hostLog(in *instance, mem api.Memory, stack []uint64) {
	n := uint32(stack[2])
	in.charge(hostCost(min(n, abi.MaxLog)))
	room := abi.MaxLog - in.logged
	if room <= 0 {
		return
	}
	p, ok := mem.Read(uint32(stack[1]), min(n, uint32(room)))
	if !ok {
		return
	}
	in.logged += max(len(p), 16) // empty lines are not free
	level := min(max(int(int32(stack[0])), -4), 8)
	in.host.Log(level, logText(p))
}

// hostNow is now() in ms since 1970.
func hostNow(in *instance, _ api.Memory, stack []uint64) {
	in.charge(0)
	stack[0] = uint64(in.time().UnixMilli())
}

// time is the host's time, asked once in a call.
func (in *instance) time() time.Time {
	if in.now.IsZero() {
		in.now = in.host.Now()
	}
	return in.now
}

// hostGet is get(p, n, buf, cap).
func hostGet(in *instance, mem api.Memory, stack []uint64) {
	name, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	if !ok || len(name) > abi.MaxFactName {
		in.charge(hostCost(0))
		result32(stack, abi.BadArg)
		return
	}
	fact, ok := factOf(in.event, string(name))
	in.charge(hostCost(uint32(len(fact))))
	if !ok {
		result32(stack, abi.NotFound)
		return
	}
	answer(mem, stack, fact)
}

// answer writes s where stack's third and fourth argument say, if it fits, and
// returns its length.
func answer(mem api.Memory, stack []uint64, s string) {
	buf, size := uint32(stack[2]), uint32(stack[3])
	if uint64(len(s)) <= uint64(size) && !mem.WriteString(buf, s) {
		result32(stack, abi.BadArg)
		return
	}
	result32(stack, int32(len(s)))
}

// factOf is the rare fact called name; ok is false where the event has none.
func factOf(ev *policy.Event, name string) (string, bool) {
	var s string
	if ev == nil {
		return "", false
	}
	switch name {
	case abi.FactServer:
		if ev.Server.IsValid() {
			s = ev.Server.String()
		}
	case abi.FactReverseName:
		s = ev.ReverseName
	case abi.FactMechanism:
		s = ev.Mechanism
	case abi.FactTLSVersion:
		s = ev.TLS.Version
	case abi.FactTLSCipher:
		s = ev.TLS.Cipher
	case abi.FactTLSSNI:
		s = ev.TLS.SNI
	case abi.FactRecipients:
		var b strings.Builder
		for i, p := range ev.Rcpts {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(p.String())
		}
		s = b.String()
	}
	return s, s != ""
}

// hostCount is count(p, n, delta, window).
func hostCount(in *instance, mem api.Memory, stack []uint64) {
	fail := func(code int64) { stack[0] = uint64(code) }
	key, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	in.charge(hostCost(min(uint32(len(key)), abi.MaxKey)))
	delta, window := int64(stack[2]), int64(stack[3])
	switch {
	case !in.grants.count:
		fail(abi.Denied)
	case !ok || len(key) > abi.MaxKey || delta < 0 || window <= 0 || window > abi.MaxWindow:
		fail(abi.BadArg)
	case in.hostCalls >= maxHostCalls:
		fail(abi.Quota)
	default:
		in.hostCalls++
		in.guard.waiting(true)
		n, err := in.host.Count(in.ctx, string(key), delta, time.Duration(window)*time.Millisecond)
		in.guard.waiting(false)
		if err != nil || n < 0 {
			fail(abi.Temporary)
			return
		}
		stack[0] = uint64(n)
	}
}

// maxAnswers is the longest answer to a DNS batch, in octets.
const maxAnswers = 128 << 10

// hostDNS is dns(p, n, buf, cap). A guest whose buffer was too small asks the
// same again and is not charged twice.
func hostDNS(in *instance, mem api.Memory, stack []uint64) {
	req, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	in.charge(hostCost(min(uint32(len(req)), abi.MaxResult)))
	switch {
	case !in.grants.dns:
		result32(stack, abi.Denied)
		return
	case !ok || len(req) > abi.MaxResult:
		result32(stack, abi.BadArg)
		return
	}
	if in.dnsRequest == "" || in.dnsRequest != string(req) {
		res, code := in.lookup(req)
		if code < 0 {
			result32(stack, code)
			return
		}
		in.dnsRequest, in.dnsResponse = string(req), res
	}
	in.charge(hostCost(uint32(len(in.dnsResponse))))
	answer(mem, stack, in.dnsResponse)
}

// lookup answers a DNSRequest; a negative code says why not.
func (in *instance) lookup(req []byte) (response string, code int32) {
	qs, err := decodeQuestions(req)
	switch {
	case err != nil:
		return "", abi.BadArg
	case in.questions+len(qs) > abi.MaxDNSQuestion:
		return "", abi.Quota
	case in.io <= 0:
		return "", abi.Timeout
	}
	in.questions += len(qs)
	ctx, cancel := context.WithTimeout(in.ctx, in.io)
	defer cancel()
	in.guard.waiting(true)
	began := time.Now()
	as := in.host.DNS(ctx, qs)
	in.io -= time.Since(began)
	in.guard.waiting(false)
	if len(as) != len(qs) {
		return "", abi.Temporary
	}
	b := encodeAnswers(as)
	if len(b) > maxAnswers {
		return "", abi.Temporary
	}
	return string(b), 0
}

// questionTypes are the record types that may be asked for.
var questionTypes = [...]string{"A", "AAAA", "MX", "TXT", "PTR", "NS", "CNAME"}

func decodeQuestions(b []byte) ([]policy.Question, error) {
	var qs []policy.Question
	r := wireReader{b: b}
	for {
		field, wire, _, p, ok := r.next()
		if !ok {
			break
		}
		if field != abi.DNSItem || wire != wireBytes {
			continue
		}
		if len(qs) == abi.MaxDNSQuestion+1 {
			return qs, nil // too many: the caller's quota says so
		}
		var q policy.Question
		ir := wireReader{b: p}
		for {
			field, wire, _, p, ok := ir.next()
			if !ok {
				break
			}
			switch {
			case field == abi.QuestionType && wire == wireBytes:
				for _, t := range questionTypes {
					if t == string(p) {
						q.Type = t
					}
				}
			case field == abi.QuestionName && wire == wireBytes && len(p) <= 255 && printableASCII(p):
				q.Name = string(p)
			}
		}
		if ir.bad || q.Type == "" || q.Name == "" {
			return nil, errors.New("malformed question")
		}
		qs = append(qs, q)
	}
	if r.bad || len(qs) == 0 {
		return nil, errors.New("malformed batch of questions")
	}
	return qs, nil
}

func encodeAnswers(as []policy.Answer) []byte {
	var b, item []byte
	for _, a := range as {
		item = appendUint(item[:0], abi.AnswerStatus, uint64(a.Status))
		for _, rec := range a.Records {
			item = appendElement(item, abi.AnswerRecord, rec)
		}
		b = binary.AppendUvarint(appendTag(b, abi.DNSItem, wireBytes), uint64(len(item)))
		b = append(b, item...)
	}
	return b
}
