package wasm

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

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
	answer(mem, stack, 2, in.dnsResponse)
}

// lookup answers a DNSRequest; a negative code says why not.
func (in *instance) lookup(req []byte) (response string, code int32) {
	qs, err := decodeQuestions(req)
	switch {
	case err != nil:
		return "", abi.BadArg
	case in.questions+len(qs) > abi.MaxDNSQuestion:
		return "", abi.Quota
	}
	in.questions += len(qs)
	as, known := in.dnsKnown(qs)
	if !known && in.io <= 0 {
		return "", abi.Timeout
	}
	if !known {
		ctx, cancel := context.WithTimeout(in.ctx, in.io)
		defer cancel()
		room := true
		in.waits(func() {
			room = in.pool.aside(in.grown(), in.mayPark, func() { as = in.host.DNS(ctx, qs) })
		})
		if !room {
			in.parked = qs
			panic(errPark)
		}
	}
	if len(as) != len(qs) {
		return "", abi.Temporary
	}
	b := encodeAnswers(as)
	if len(b) > maxAnswers {
		return "", abi.Temporary
	}
	return string(b), 0
}

// dnsKnown are the answers that the host has at hand, if it has all of them: then
// nothing has to be put aside for them.
func (in *instance) dnsKnown(qs []policy.Question) ([]policy.Answer, bool) {
	if h, ok := in.host.(interface {
		DNSKnown([]policy.Question) ([]policy.Answer, bool)
	}); ok {
		return h.DNSKnown(qs)
	}
	return nil, false
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
			case field == abi.QuestionName && wire == wireBytes && len(p) <= 255:
				if q.Name = string(p); !printableASCII(p) { // a name in UTF-8 is looked up by its A-labels
					q.Name = mail.DomainKey(q.Name)
				}
			}
		}
		if ir.bad || q.Type == "" || q.Name == "" || !printableASCII([]byte(q.Name)) {
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
