package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress is a line on a terminal that tells how far a long work has come. It is
// for one goroutine.
type progress struct {
	w     io.Writer // nil: nobody looks
	what  string
	began time.Time
	next  time.Time // not drawn before
	drawn bool
}

// newProgress draws on w if it is a terminal.
func newProgress(w io.Writer) *progress {
	p := &progress{began: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = w
	}
	return p
}

// tell draws that done of total units of what are behind us; total 0: not known.
func (p *progress) tell(what string, done, total int64) {
	now := time.Now()
	if p.w == nil || now.Before(p.next) && what == p.what {
		return
	}
	p.what, p.next, p.drawn = what, now.Add(100*time.Millisecond), true
	const width = 30
	if total <= 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%d  %.60s", done, what)
		return
	}
	full := int(min(done, total) * width / total)
	left := ""
	if took := now.Sub(p.began); done > 0 && took > 2*time.Second {
		left = "  " + time.Duration(float64(took)*float64(total-done)/float64(done)).Round(time.Second).String() + " left"
	}
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %3d %%%s  %.60s", strings.Repeat("=", full), strings.Repeat(" ", width-full), min(done, total)*100/total, left, what)
}

// end takes the line away.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
