package policy

import (
	"crypto/sha256"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Asked is one moment at which checks were asked, with everything that they were told: a
// tape of these is enough to judge the same mail again, see Session.Replay.
type Asked struct {
	Event      Event // without Directory and Content, whose answers are in Facts, Fields and Reads
	Generation int
	Decision   Decision
	Calls      []Called // of checks, in their order; those that were not asked are missing

	Content   bool // the event had one
	Directory bool // likewise

	// What was asked of the event. Checks of one moment share the answers.
	Facts  []Fact
	Fields []HeaderRead
	Reads  []BodyRead
}

// Called is what one check did.
type Called struct {
	Check    string // "policy/check"
	Digest   string // of its module; "" if it has none
	Observed bool
	Now      time.Time
	Answers  []HostAnswer
	Verdict  Verdict
	Err      string // "": there is a verdict
	Fuel     int64
}

// HostAnswer is one question that a check put to its Host, with the answer. Which of the
// fields count depends on Kind.
type HostAnswer struct {
	Kind   HostKind
	Key    string        // of count and state; of list "NAME\x00KEY"; of dns "TYPE NAME"
	Delta  int64         // of count
	Span   time.Duration // window or time to live
	Value  []byte        // asked of random and state_put; answered by random and state_get; of list
	Texts  []string      // records of dns
	N      int64         // sum of count; earlier sightings; status of dns
	OK     bool          // state_get and list: there is one
	First  time.Time     // of a sighting
	Last   time.Time
	Failed string // the error; "" if there was none
}

// HostKind is a method of Host.
type HostKind uint8

// The kinds. Now is in Called; Metric and Log have no answers.
const (
	AskedRandom HostKind = iota + 1
	AskedDNS
	AskedCount
	AskedStateGet
	AskedStatePut
	AskedStateSeen
	AskedList
)

// Fact is an answer of the Directory's: the class of a path, or its owners.
type Fact struct {
	Path   mail.Path
	Owners bool
	Texts  []string // the class alone, or the owners
}

// HeaderRead is a header field that a check looked at.
type HeaderRead struct {
	Name  string
	Index int
	Value string
	OK    bool
}

// BodyRead is a range of the body that a check read.
type BodyRead struct {
	Off  int64
	Want int // octets that there was room for
	N    int // octets that there were
	End  bool
	Sum  [sha256.Size]byte
	Data []byte // nil unless contents are kept
}

// Tape takes what checks were asked. Asked is called by many sessions at once, and must
// not keep a.
type Tape interface{ Asked(a *Asked) }
