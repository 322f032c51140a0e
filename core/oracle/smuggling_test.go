package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// TestSmuggling: look-alikes of the end of a message never make two messages of
// one where Postfix, at its strictest, takes one.
func TestSmuggling(t *testing.T) {
	rows := load(t, "smuggling")
	b, err := os.ReadFile(folder + "configs.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec recording
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	strict := map[string]int{} // messages that bare-reject took, by name of the sequence and client
	for _, r := range rows {
		if r.Config == "bare-reject" {
			strict[r.Name+" "+r.Client] = r.Accepted
		}
	}
	addr, _ := serve(t, t.TempDir(), rec.Main, dns.NewZone(nil))
	var mu sync.Mutex
	var g sync.WaitGroup
	twice := 0
	queue := make(chan row)
	for range workers {
		g.Go(func() {
			for r := range queue {
				n, err := accepted(addr, &r, rec.Clients[r.Client])
				if err != nil {
					t.Errorf("%s: %v", r.ID, err)
					continue
				}
				most, known := strict[r.Name+" "+r.Client]
				if !known {
					most = r.Accepted
				}
				if n > most {
					t.Errorf("%s (%s, %s, %s): %d messages were accepted, Postfix takes %d", r.ID, r.Config, r.Client, r.Name, n, most)
				}
				mu.Lock()
				if r.Accepted > n {
					twice++
				}
				mu.Unlock()
			}
		})
	}
	for _, r := range rows {
		queue <- r
	}
	close(queue)
	g.Wait()
	t.Logf("%d sequences; of %d Postfix took more under their settings than is taken here", len(rows), twice)
}

// accepted says what a row's client said and counts messages that were taken.
// How many replies come is not known before: after the first, the next may take
// a fifth of a second.
func accepted(addr string, r *row, attributes map[string]string) (n int, err error) {
	s, err := begin(addr, attributes)
	if s != nil {
		defer s.c.Close()
	}
	if err != nil {
		return 0, err
	}
	for _, step := range r.Steps {
		if _, err := fmt.Fprint(s.c, string(step.Send)); err != nil {
			return n, nil // it was hung up on
		}
		patience := 5 * time.Second
		for range 40 {
			a, err := s.reply(patience)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return n, nil // the server hangs up
			}
			if a.Code == 250 && len(a.Text) > 0 && strings.Contains(string(a.Text[0]), "accepted as") {
				n++
			}
			patience = 200 * time.Millisecond // for whatever else is on its way
		}
	}
	return n, nil
}
