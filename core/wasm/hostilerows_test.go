package wasm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

const i64Or = 0x84 // i64.or

// hostileRow is a module that is valid and bad. The modules are written in
// instructions, since no compiler would.
type hostileRow struct {
	name   string
	module *builder
	causes string // a call ends in one of these
	grants []string
	stage  policy.Stage // 0: Helo
	limits Limits
}

func (r *hostileRow) options() LoadOptions {
	return LoadOptions{Grants: r.grants, Limits: r.limits}
}

func (r *hostileRow) event(t testing.TB) *policy.Event {
	ev := event(t, max(r.stage, policy.Helo), "mail.example.com")
	if ev.Stage == policy.Message {
		ev.Content = letter{strings.Repeat("x", 1<<20)}
	}
	return ev
}

func (r *hostileRow) world() *world { return newWorld() }

// letter is a message of one header field and a body.
type letter struct{ body string }

func (l letter) Header(name string, index int) (string, bool) {
	switch {
	case index != 0:
	case name == "":
		return "Subject: hello", true
	case strings.EqualFold(name, "Subject"):
		return "hello", true
	}
	return "", false
}

func (l letter) Body(p []byte, off int64) (int, error) {
	return strings.NewReader(l.body).ReadAt(p, off)
}

// spin is an endless loop that leaves an i64 it never gets to.
var spin = []byte{opLoop, typeEmpty, opBr, 0, opEnd, opI64Const, 0}

// result makes wafer_event answer with msg, which is put at 8192.
func answering(msg []byte) *builder {
	b := new(builder)
	b.text(8192, string(msg))
	return b.complete(packedConst(8192, uint32(len(msg)))...)
}

// verdict is a Verdict message of varints and texts, for tests.
func verdict(action, code uint64, text string) []byte {
	b := appendUint(nil, abi.VerdictAction, action)
	b = appendUint(b, abi.VerdictCode, code)
	return appendText(b, abi.VerdictText, text)
}

// bigFill fills all of 256 MiB, again and again.
func bigFill() *builder {
	b := new(builder)
	b.memory = append([]byte{0}, appendU32(nil, 4096)...)
	return b.complete(join([]byte{opLoop, typeEmpty, opI32Const, 0, opI32Const, 0}, appendSigned([]byte{opI32Const}, 256<<20-1),
		[]byte{opMisc, 11, 0, opBr, 0, opEnd, opI64Const, 0})...)
}

// storm calls one import for ever. Numbers are the arguments, each with the type
// that the import's signature has there.
func storm(module, name string, args ...int64) *builder {
	f := hostFunctions[module+"."+name]
	var params, results, code []byte
	to := &params
	for _, c := range f.signature {
		switch c {
		case '>':
			to = &results
		case 'i':
			*to = append(*to, typeI32)
		case 'I':
			*to = append(*to, typeI64)
		}
	}
	for i, a := range args {
		op := byte(opI32Const)
		if params[i] == typeI64 {
			op = opI64Const
		}
		code = appendSigned(append(code, op), a)
	}
	b := new(builder)
	b.imports = []builderImport{{module, name, b.typ(params, results)}}
	code = append(code, opCall, 0)
	if len(results) > 0 {
		code = append(code, opDrop)
	}
	// A batch of DNS questions, a list's name and a key stand in the memory.
	b.text(8192, string(appendElement(nil, abi.DNSItem, string(appendElement(appendElement(nil, abi.QuestionType, "A"), abi.QuestionName, "a.example")))))
	b.text(9000, "bad")
	return b.complete(join([]byte{opLoop, typeEmpty}, code, []byte{opBr, 0, opEnd, opI64Const, 0})...)
}

// stormRows are calls of each import without end, with and without the grant's
// allowance used up.
func stormRows() []hostileRow {
	const ended = "fuel deadline"
	wafer := func(name, grant string, stage policy.Stage, args ...int64) hostileRow {
		r := hostileRow{name: "storm of " + name, module: storm(abi.Module, name, args...), causes: ended, stage: stage}
		if grant != "" {
			r.grants = []string{grant}
		}
		return r
	}
	rows := []hostileRow{
		wafer(abi.ImportNow, "", 0),
		wafer(abi.ImportLog, "", 0, 0, 0, 63),
		wafer(abi.ImportRandom, "", 0, 0, 65536),
		wafer(abi.ImportGet, "", 0, 0, 3, 0, 63),
		wafer(abi.ImportMetric, "", 0, 9000, 3, 1),
		wafer(abi.ImportDNS, abi.GrantDNS, 0, 8192, 16, 16384, 4096),
		wafer(abi.ImportCount, abi.GrantCount, 0, 9000, 3, 1, 60000),
		wafer(abi.ImportStateGet, abi.GrantState, 0, 9000, 3, 16384, 64),
		wafer(abi.ImportStatePut, abi.GrantState, 0, 9000, 3, 0, 16384, 60000),
		wafer(abi.ImportStateSeen, abi.GrantState, 0, 9000, 3, 60000, 16384, 64),
		wafer(abi.ImportList, abi.GrantList, 0, 9000, 3, 9000, 3, 16384, 64),
		wafer(abi.ImportHeader, abi.GrantMessage, policy.Message, 9000, 0, 0, 16384, 0),
		wafer(abi.ImportBody, abi.GrantMessage, policy.Message, 0, 0, 65536),
	}
	for name, args := range map[string][]int64{
		"random_get": {0, 65536}, "fd_write": {1, 0, 64, 60000}, "clock_time_get": {0, 0, 0}, "poll_oneoff": {0, 16384, 64, 60000}, "sched_yield": {},
	} {
		rows = append(rows, hostileRow{name: "storm of " + name, module: storm(abi.WASI, name, args...), causes: ended})
	}
	return rows
}

// hostileRows are all of them.
func hostileRows() []hostileRow {
	tree := func() *builder { // f0 calls f1 twice, which calls f2 twice, …: 2^39 calls without a loop
		b := new(builder)
		const levels = 40
		for i := range levels {
			var code []byte
			if i < levels-1 {
				code = []byte{opCall, byte(i + 1), opCall, byte(i + 1)}
			}
			b.add(nil, nil, code...)
		}
		return b.complete(opCall, 0, opI64Const, 0)
	}
	deep := func() *builder {
		b := new(builder)
		b.add(nil, nil, opCall, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	mutual := func() *builder {
		b := new(builder)
		b.add(nil, nil, opCall, 1)
		b.add(nil, nil, opCall, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	indirect := func() *builder { // a function that calls itself through the table
		b := new(builder)
		b.tables = [][]byte{{typeFuncref, 0, 1}}
		b.elems = [][]byte{{0, opI32Const, 0, opEnd, 1, 0}}
		b.add(nil, nil, opI32Const, 0, opCallIndirect, 0, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	wide := func() *builder { // recursion with a frame of 10,000 locals
		b := new(builder)
		b.add(nil, nil, opCall, 0)
		b.funcs[0].locals = append(appendU32([]byte{1}, 9000), typeI64)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	growMemory := func() *builder { // until it fails, then for ever
		return new(builder).complete(opLoop, typeEmpty, opI32Const, 16, opMemoryGrow, 0, opDrop, opBr, 0, opEnd, opI64Const, 0)
	}
	growTable := func() *builder {
		b := new(builder)
		b.tables = [][]byte{{typeFuncref, 0, 1}}
		return b.complete(join([]byte{opLoop, typeEmpty, opRefNull, typeFuncref}, appendSigned([]byte{opI32Const}, 1000),
			[]byte{opMisc, 15, 0, opDrop, opBr, 0, opEnd, opI64Const, 0})...)
	}
	fill := func() *builder { // fills all of 64 MiB, again and again
		b := new(builder)
		b.memory = append([]byte{0}, appendU32(nil, 1024)...)
		return b.complete(join([]byte{opLoop, typeEmpty, opI32Const, 0, opI32Const, 0}, appendSigned([]byte{opI32Const}, 64<<20),
			[]byte{opMisc, 11, 0, opBr, 0, opEnd, opI64Const, 0})...)
	}
	return append(stormRows(), []hostileRow{
		{name: "endless loop", module: new(builder).complete(spin...), causes: "fuel deadline"},
		{name: "exponential tree of calls without a loop", module: tree(), causes: "fuel deadline"},
		{name: "deep recursion", module: deep(), causes: "depth"},
		{name: "mutual recursion", module: mutual(), causes: "depth"},
		{name: "recursion through a table", module: indirect(), causes: "depth"},
		{name: "recursion with wide frames", module: wide(), causes: "depth"},
		{name: "memory bomb", module: growMemory(), causes: "fuel deadline"},
		{name: "table bomb", module: growTable(), causes: "fuel deadline"},
		{name: "fills of 64 MiB", module: fill(), causes: "fuel deadline"},
		{name: "trap", module: new(builder).complete(opUnreachable), causes: "trap"},
		{name: "load out of bounds", module: new(builder).complete(opI32Const, 0x7f, 0x29, 0, 0), causes: "trap"},
		{name: "division by zero", module: new(builder).complete(opI64Const, 1, opI64Const, 0, 0x7f), causes: "trap"},
		{name: "guest error", module: new(builder).complete(opI64Const, 0x7f), causes: "guest error"},
		{name: "result out of bounds", module: new(builder).complete(packedConst(0xfffffff0, 64)...), causes: "bad verdict"},
		{name: "result across the end", module: new(builder).complete(packedConst(65530, 64)...), causes: "bad verdict"},
		{name: "giant result", module: new(builder).complete(packedConst(0, 65537)...), causes: "bad verdict"},
		{name: "longest length", module: new(builder).complete(packedConst(1, 0xffffffff)...), causes: "guest error bad verdict"},
		{name: "result of rubbish", module: answering([]byte{0xff, 0xff, 0xff}), causes: "bad verdict"},
		{name: "line end in the text", module: answering(verdict(2, 550, "a\r\nRCPT TO:<x>")), causes: "bad verdict"},
		{name: "NUL in the text", module: answering(verdict(2, 550, "a\x00b")), causes: "bad verdict"},
		{name: "long text", module: answering(verdict(2, 550, strings.Repeat("x", 481))), causes: "bad verdict"},
		{name: "unknown action", module: answering(verdict(10, 0, "")), causes: "bad verdict"},
		{name: "success as a refusal", module: answering(verdict(2, 250, "ok")), causes: "bad verdict"},
		{name: "4xx for a reject", module: answering(verdict(2, 450, "no")), causes: "bad verdict"},
		{name: "5xx for a defer", module: answering(verdict(3, 550, "no")), causes: "bad verdict"},
		{name: "code for accept", module: answering(verdict(1, 250, "")), causes: "bad verdict"},
		{name: "discard at helo", module: answering(verdict(5, 0, "")), causes: "bad verdict"},
		{name: "line end in a header field", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A", "b\nBcc: c")))), causes: "bad verdict"},
		{name: "colon in a header field's name", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A: b\r\nX", "c")))), causes: "bad verdict"},
		{name: "redirect at helo", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpRedirect, "", "a@b.example")))), causes: "bad verdict"},
		{name: "exit", module: wasiCall("proc_exit", i32, nil, opI32Const, 0), causes: "exit"},
		{name: "calls its own export", module: new(builder).complete(opLocalGet, 0, opLocalGet, 1, opCall, 4), causes: "depth"},
		{name: "the event as the verdict", module: new(builder).complete(join([]byte{opI64Const}, appendSigned(nil, 4096<<32), []byte{opLocalGet, 1, opI64ExtendU, i64Or})...), causes: "bad verdict"},
		{name: "all of the memory as the verdict", module: new(builder).complete(packedConst(0, 65536)...), causes: "bad verdict"},
		{name: "65 modifications", module: answering(bytes.Repeat(appendElement(nil, abi.VerdictMod, string(mod(abi.OpTag, "", "t"))), 65)), causes: "bad verdict"},
		{name: "a modification in a modification", module: answering(appendElement(nil, abi.VerdictMod, string(appendElement(nil, abi.VerdictMod, "x")))), causes: "bad verdict"},
		{name: "CR in the enhanced code", module: answering(append(verdict(2, 550, "no"), appendElement(nil, abi.VerdictEnhanced, "5.7.\r1")...)), causes: "bad verdict"},
		{name: "line end in the reason", module: answering(appendElement(nil, abi.VerdictReason, "a\nb")), causes: "bad verdict"},
		{name: "line end in a tag", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpTag, "", "a\r\nb")))), causes: "bad verdict"},
		{name: "folded header field", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A", "b\r\n c")))), causes: "bad verdict"},
		{name: "bcc at helo", module: answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpBCC, "", "a@b.example")))), causes: "bad verdict"},
		{name: "hold at helo", module: answering(verdict(6, 0, "")), causes: "bad verdict"},
		{name: "quarantine at helo", module: answering(verdict(7, 0, "")), causes: "bad verdict"},
		{name: "grows and traps", module: new(builder).complete(join(appendSigned([]byte{opI32Const}, 900), []byte{opMemoryGrow, 0, opDrop, opI32Const, 0, opI32Const, 1}, appendSigned([]byte{opI32Const}, 50<<20), []byte{opMisc, 11, 0, opUnreachable})...), causes: "trap"},
		{name: "fills of 256 MiB", module: bigFill(), causes: "fuel deadline", limits: Limits{Memory: 256 << 20}},
	}...)
}

func mod(op uint64, name, value string) []byte {
	b := appendUint(nil, abi.ModOp, op)
	b = appendText(b, abi.ModName, name)
	return appendElement(b, abi.ModValue, value)
}

// wasiCall makes wafer_event call a WASI function.
func wasiCall(name string, params, results []byte, args ...byte) *builder {
	b := new(builder)
	b.imports = []builderImport{{abi.WASI, name, b.typ(params, results)}}
	var drop []byte
	if len(results) > 0 {
		drop = []byte{opDrop}
	}
	return b.complete(join(args, []byte{opCall, 0}, drop, []byte{opI64Const, 0})...)
}
