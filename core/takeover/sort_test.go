package takeover

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// hardBox fills a user's INBOX with hard messages, and gives it to both programs.
// dated is the set of those that have a good Date.
func hardBox(t *testing.T, h *house, user string, seed uint64, n int) (dated string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	h.maildir(h.mail(user))
	base := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		text, ok := hardMail(r, i)
		if ok {
			dated += fmt.Sprintf(",%d", i+1)
		}
		letters := ""
		for _, l := range "DFRST" {
			if r.IntN(4) == 0 {
				letters += string(l)
			}
		}
		path := fmt.Sprintf("%s/cur/%d.M%d.h:2,%s", h.mail(user), 1700000000+i, i, letters)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "\r\n", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		when := base.Add(time.Duration(r.IntN(400)) * 6 * time.Hour)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	h.own(h.dir + "/" + user)
	return dated[1:]
}

// sortCommands are SORT by each key alone, turned round, and with each other key.
func sortCommands() (list []string) {
	keys := []string{"ARRIVAL", "CC", "DATE", "DISPLAYFROM", "DISPLAYTO", "FROM", "SIZE", "SUBJECT", "TO"}
	for _, a := range keys {
		list = append(list, "("+a+")", "(REVERSE "+a+")")
		for _, b := range keys {
			if a != b {
				list = append(list, "("+a+" "+b+")", "(REVERSE "+a+" "+b+")", "("+a+" REVERSE "+b+")")
			}
		}
	}
	for i, k := range list {
		list[i] = "SORT " + k + " UTF-8 ALL"
	}
	return append(list, "UID SORT (SUBJECT DATE) UTF-8 UNSEEN", "SORT (SUBJECT) US-ASCII FLAGGED", "UID SORT (FROM REVERSE DATE SIZE) UTF-8 NOT DELETED",
		"SORT RETURN (MIN MAX COUNT) (DATE) UTF-8 ALL", "SORT RETURN (ALL) (SUBJECT) UTF-8 1:50")
}

// searchCommands look for what the messages of hardBox have.
func searchCommands(dated string) (list []string) {
	words := []string{"über", "ÜBER", "uber", "strasse", "STRAßE", "café", "CAFE\u0301", "привет", "日本", "ΕΛΛΆΔΑΣ", "report", "re:", "[list]", "(fwd)", "fish", "ﬁsh", "besprech", ""}
	for _, w := range words {
		lit := fmt.Sprintf("{%d+}\r\n%s", len(w), w)
		for _, key := range []string{"SUBJECT", "TEXT", "BODY", "HEADER Subject"} {
			if w != "" || key != "TEXT" {
				list = append(list, "SEARCH CHARSET UTF-8 "+key+" "+lit)
			}
		}
	}
	for _, w := range []string{"ann", "BOB", "example.org", "Ümit", "ümit", "Zoë", "Team", "Grüppe", "undisclosed", "bob b", "d e", "éva"} {
		lit := fmt.Sprintf("{%d+}\r\n%s", len(w), w)
		for _, key := range []string{"FROM", "TO", "CC", "BCC", "HEADER To"} {
			list = append(list, "SEARCH CHARSET UTF-8 "+key+" "+lit)
		}
	}
	for _, day := range []string{"1-Jan-2024", "15-Jan-2024", "10-Feb-2024", "15-Mar-2023", "1-Jun-2022", "5-Jul-1969", "20-Apr-2024"} {
		for _, key := range []string{"SENTBEFORE", "SENTON", "SENTSINCE", "BEFORE", "ON", "SINCE"} {
			set := "1:* "
			if strings.HasPrefix(key, "SENT") { // RFC 9051 §6.4.4: a message without a date was never sent; Dovecot takes it for one of 1970
				set = dated + " "
			}
			list = append(list, "SEARCH "+set+key+" "+day)
		}
	}
	for _, k := range []string{"SEEN", "UNSEEN", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "UNFLAGGED", "UNDRAFT", "KEYWORD foo", "UNKEYWORD foo", "LARGER 200", "SMALLER 300", "1:20,300:*", "UID 5:9,17",
		`HEADER Message-ID ""`, `HEADER References ""`, "HEADER References lost", "HEADER In-Reply-To m1", "HEADER X-None a", "OR SEEN (FLAGGED SUBJECT re)", "NOT OR SEEN FLAGGED", "NOT (SEEN SUBJECT a)", "TEXT references", "BODY text", "SUBJECT second"} {
		list = append(list, "SEARCH "+k, "UID SEARCH RETURN (MIN MAX COUNT ALL) "+k)
	}
	return list
}

func TestSortThreadSearch(t *testing.T) {
	h := newHouse(t)
	dated := hardBox(t, h, "ann", 1, 400)
	d, w := h.dovecot("ann"), h.wafer("ann")
	defer d.close()
	defer w.close()
	d.ok("SELECT INBOX")
	w.ok("SELECT INBOX")
	commands := append(sortCommands(), searchCommands(dated)...)
	for _, a := range []string{"REFERENCES", "ORDEREDSUBJECT"} {
		commands = append(commands, "THREAD "+a+" UTF-8 ALL", "UID THREAD "+a+" UTF-8 UNSEEN", "THREAD "+a+" US-ASCII SUBJECT re", "THREAD "+a+" UTF-8 1:30")
	}
	for _, c := range commands {
		equalResults(t, w, d, c)
	}
}

// equalResults runs a command in both sessions.
func equalResults(t *testing.T, w, d *conn, command string) {
	t.Helper()
	mine, wt := w.try(command)
	his, dt := d.try(command)
	if wt[:2] != dt[:2] {
		t.Errorf("%.100q\nwafer   %s\ndovecot %s", command, wt, dt)
		return
	}
	sameLines(t, fmt.Sprintf("%.100q", command), results(mine), results(his))
}

// results are the lines with what was found; Dovecot says more when it is asked for a
// keyword that it does not know.
func results(lines []string) (out []string) {
	for _, l := range lines {
		switch word, _, _ := strings.Cut(strings.TrimPrefix(l, "* "), " "); word {
		case "SEARCH", "ESEARCH", "SORT", "THREAD":
			out = append(out, untag(l))
		}
	}
	return out
}

// untag leaves out the tag that ESEARCH repeats.
func untag(line string) string {
	if rest, ok := strings.CutPrefix(line, "* ESEARCH (TAG "); ok {
		if _, after, ok := strings.Cut(rest, ")"); ok {
			return "* ESEARCH" + after
		}
	}
	return strings.TrimSpace(line)
}
