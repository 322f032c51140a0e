package mbox

import (
	"strings"
	"time"
)

// fromLayouts are dates as From lines have them: that of asctime(3), with a zone in
// either place, without seconds, and that of mail headers.
func fromLayouts() []string {
	return []string{
		"Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 2006 -0700", "Mon Jan 2 15:04:05 -0700 2006", "Mon Jan 2 15:04:05 MST 2006", "Mon Jan 2 15:04:05 2006 MST",
		"Mon Jan 2 15:04 2006", "Mon Jan 2 15:04 MST 2006", "Mon, 2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04:05", "2 Jan 2006 15:04:05 -0700", "2006-01-02T15:04:05Z07:00",
	}
}

// parseFrom reads a line that begins a message, without its end: "From ", the sender,
// which may have spaces in quotes or be missing, and the date, which is UTC unless it
// says otherwise. date is zero where there is none that makes sense. ok is false
// if it does not even begin so.
func parseFrom(line string) (sender string, date time.Time, ok bool) {
	rest, ok := strings.CutPrefix(line, "From ")
	if !ok || len(line) > 1024 {
		return "", date, ok
	}
	words := strings.Fields(rest)
	if n := len(words); n > 3 && words[n-3] == "remote" && words[n-2] == "from" { // UUCP
		words = words[:n-3]
	}
	// The sender ends where the date begins, and the date is at most seven words.
	for i := max(0, len(words)-7); i < len(words); i++ {
		text := strings.Join(words[i:], " ")
		for _, layout := range fromLayouts() {
			if t, err := time.Parse(layout, text); err == nil && t.Year() > 1900 {
				return cleanSender(strings.Join(words[:i], " ")), t, true
			}
		}
	}
	return cleanSender(rest), date, true
}

// cleanSender is "" for what programs write who know of no sender.
func cleanSender(s string) string {
	s = strings.TrimSpace(s)
	if s == "-" || s == "MAILER-DAEMON" || s == "<>" {
		return ""
	}
	return s
}

// formatFrom is the line that begins a message, with its end. Its date is UTC, as
// RFC 4155 has it.
func formatFrom(sender string, date time.Time) string {
	sender = strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, sender)
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	if y := date.UTC().Year(); y < 1901 || y > 9999 { // a date must have four digits, and make sense to be found again
		date = time.Unix(0, 0)
	}
	return "From " + sender + " " + date.UTC().Format(time.ANSIC) + "\n"
}
