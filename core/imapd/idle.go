package imapd

import (
	"errors"
	"os"
	"strings"
	"time"
)

// cmdIdle is RFC 9051 §6.3.13. While the session waits for DONE a second
// goroutine waits for the folder's signal and wakes it by moving its read
// deadline; the session alone writes, and waits for the other at the end.
func (s *session) cmdIdle(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	p.line, p.pos = nil, 0
	if err := s.refresh(); err != nil || s.over {
		return done{}, err
	}
	if s.view != nil && s.notify == nil {
		signal, cancel := s.view.folder.Watch()
		stop, gone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(gone)
			for {
				select {
				case <-signal:
					s.wake.kick()
				case <-stop:
					return
				}
			}
		}()
		defer func() {
			cancel()
			close(stop)
			<-gone
			s.wake.taken() // a late kick must not end the next wait
		}()
	}
	s.out.line("+ idling")
	s.news(true) // what came between the last command and the watch
	s.wake.setBusy(false)
	defer s.wake.setBusy(true)
	began := time.Now()
	for {
		s.in.shrink()
		s.patience = s.srv.c.Limits.Idle - time.Since(began)
		line, err := s.in.line()
		switch {
		case err == nil:
			s.patience = s.srv.c.Limits.Literal
			if strings.EqualFold(strings.TrimSpace(string(line)), "DONE") {
				return done{}, nil
			}
			return done{}, bad("Expected DONE")
		case errors.Is(err, os.ErrDeadlineExceeded):
			kicked, closing := s.wake.taken()
			if closing || !kicked {
				return done{}, err
			}
			if s.notify != nil { // IDLE sends what NOTIFY asks for (RFC 5465 §4)
				if s.notified(true); s.over {
					return done{}, nil
				}
				continue
			}
			if err := s.refresh(); err != nil || s.over {
				return done{}, err
			}
			s.news(true)
		default:
			return done{}, err
		}
	}
}
