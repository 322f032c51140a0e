package maildir

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrOverQuota means that there is no room for a message.
var ErrOverQuota = errors.New("mailbox is full")

// Quota is what a user may store. The zero Quota has no limits. Octets are
// those of the files as they arrived: what a compressed message unpacks to.
type Quota struct {
	Storage  int64 // octets, 0: no limit
	Messages int64 // 0: no limit
	Rules    []QuotaRule

	// A mailbox that is not full yet takes one message more that goes beyond
	// Storage by at most Grace octets or GracePercent of Storage, whichever is more.
	Grace        int64
	GracePercent int

	// Warned is called with one of Warn, percents of Storage or Messages, when
	// use rises to it: with the highest where several are crossed at once. It
	// must not wait for anything.
	Warn   []int
	Warned func(percent int)
}

// QuotaRule says what is different for some folders.
type QuotaRule struct {
	Folder         string // name; "*" stands for any octets and "?" for one
	Ignore         bool   // what is in the folder does not count and has no limit
	Storage        int64  // octets by which the limit is higher for messages into it
	StoragePercent int    // of Quota.Storage, likewise
	Messages       int64  // likewise
}

// Usage is how much there is, or may be.
type Usage struct{ Storage, Messages int64 }

// maxQuota keeps sums of two limits from overflowing.
const maxQuota = 1 << 60

// ParseQuotaRule reads a rule as Dovecot's quota_rule has it: "Trash:storage=+100M",
// "Trash:storage=+10%:messages=+50" or "Spam*:ignore". Units are B, k, M, G and T,
// of 1024; without one it is k.
func ParseQuotaRule(s string) (QuotaRule, error) {
	bad := func(why string) (QuotaRule, error) {
		return QuotaRule{}, fmt.Errorf("quota rule %q: %s", s, why)
	}
	folder, rest, ok := strings.Cut(s, ":")
	r := QuotaRule{Folder: folder}
	if !ok || folder == "" || len(folder) > maxNameOctets {
		return bad(`write FOLDER:storage=+SIZE, FOLDER:messages=+NUMBER or FOLDER:ignore`)
	}
	for _, part := range strings.Split(rest, ":") {
		key, value, _ := strings.Cut(part, "=")
		sign := int64(1)
		if strings.HasPrefix(value, "-") {
			sign = -1
		}
		switch amount := strings.TrimLeft(value, "+-"); {
		case part == "ignore":
			r.Ignore = true
		case len(value)-len(amount) != 1 && (key == "storage" || key == "messages"):
			return bad("a folder's limit is told as +MORE or -LESS than the mailbox's")
		case key == "messages":
			n := number(amount)
			if n < 0 || n > maxQuota {
				return bad("the number of messages is none")
			}
			r.Messages = sign * n
		case key == "storage" && strings.HasSuffix(amount, "%"):
			n := number(strings.TrimSuffix(amount, "%"))
			if n < 0 || n > 10_000 {
				return bad("the percentage is none")
			}
			r.StoragePercent = int(sign * n)
		case key == "storage":
			n, ok := parseOctets(amount)
			if !ok {
				return bad("the size is none")
			}
			r.Storage = sign * n
		default:
			return bad(strconv.Quote(part) + " is not known")
		}
	}
	return r, nil
}

// ParseLimits reads "storage=1G:messages=1000", as a Dovecot quota rule for the whole
// mailbox has them. Units are as in ParseQuotaRule.
func ParseLimits(s string) (storage, messages int64, err error) {
	for _, part := range strings.Split(s, ":") {
		key, value, _ := strings.Cut(part, "=")
		ok := false
		switch key {
		case "storage":
			storage, ok = parseOctets(value)
		case "bytes":
			storage = number(value)
			ok = storage >= 0 && storage <= maxQuota
		case "messages":
			messages = number(value)
			ok = messages >= 0 && messages <= maxQuota
		}
		if !ok {
			return 0, 0, fmt.Errorf("quota %q: write storage=SIZE, messages=NUMBER, or both with a colon between", s)
		}
	}
	return storage, messages, nil
}

func parseOctets(s string) (int64, bool) {
	shift := 10
	if s != "" {
		if i := strings.IndexByte("BKMGT", s[len(s)-1]&^0x20); i >= 0 {
			shift, s = 10*i, s[:len(s)-1]
		}
	}
	n := number(s)
	return n << shift, n >= 0 && n <= maxQuota>>shift
}

// limited reports whether there is any limit.
func (q *Quota) limited() bool { return q != nil && (q.Storage > 0 || q.Messages > 0) }

// rule is the first one for the folder, nil if there is none.
func (q *Quota) rule(folder string) *QuotaRule {
	if q == nil {
		return nil
	}
	for i := range q.Rules {
		if r := &q.Rules[i]; matchFolder(r.Folder, folder) {
			return r
		}
	}
	return nil
}

// ignores reports whether what is in the folder does not count.
func (q *Quota) ignores(folder string) bool {
	r := q.rule(folder)
	return r != nil && r.Ignore
}

// matchFolder matches in time linear in the product of the lengths, which are bounded.
func matchFolder(pattern, name string) bool {
	if isInbox(pattern) && isInbox(name) {
		return true
	}
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// percent is n percent of limit.
func percent(limit int64, n int) int64 {
	return limit/100*int64(n) + limit%100*int64(n)/100
}

// limits are those for messages into the folder; 0: none.
func (q *Quota) limits(folder string) Usage {
	u := Usage{min(q.Storage, maxQuota), min(q.Messages, maxQuota)}
	r := q.rule(folder)
	if r == nil {
		return u
	}
	if r.Ignore {
		return Usage{}
	}
	if u.Storage > 0 {
		u.Storage = max(1, u.Storage+r.Storage+percent(q.Storage, r.StoragePercent))
	}
	if u.Messages > 0 {
		u.Messages = max(1, u.Messages+r.Messages)
	}
	return u
}

// room is ErrOverQuota if more does not fit into the folder beside used.
func (q *Quota) room(folder string, used, more Usage) error {
	limit := q.limits(folder)
	if limit.Messages > 0 && used.Messages+more.Messages > limit.Messages {
		return fmt.Errorf("%w: it has %d of %d messages", ErrOverQuota, used.Messages, limit.Messages)
	}
	if limit.Storage <= 0 || used.Storage+more.Storage <= limit.Storage {
		return nil
	}
	grace := max(q.Grace, percent(q.Storage, q.GracePercent))
	if used.Storage < limit.Storage && used.Storage+more.Storage <= limit.Storage+grace {
		return nil
	}
	return fmt.Errorf("%w: %d of %d octets are in use, and the message has %d", ErrOverQuota, used.Storage, limit.Storage, more.Storage)
}

// crossed is the highest percentage to warn of when use has risen from before to
// after, 0 if there is none.
func (q *Quota) crossed(before, after Usage) (highest int) {
	over := func(n int, before, after, limit int64) bool {
		at := percent(limit, n)
		return limit > 0 && before < at && after >= at
	}
	for _, n := range q.Warn {
		if n > highest && (over(n, before.Storage, after.Storage, q.Storage) || over(n, before.Messages, after.Messages, q.Messages)) {
			highest = n
		}
	}
	return highest
}

func (u Usage) plus(v Usage) Usage  { return Usage{u.Storage + v.Storage, u.Messages + v.Messages} }
func (u Usage) minus(v Usage) Usage { return Usage{u.Storage - v.Storage, u.Messages - v.Messages} }
