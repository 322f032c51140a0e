// Package config reads config.hcl and the policies folder into a typed Config.
//
// Load reports every fault at once, each with file, line, an excerpt and what to
// write instead; a configuration with one fault is not used at all. Unknown
// keys are faults. Nothing outside this package knows HCL: what others may need
// of a place in a file is text, "config.hcl:12".
//
// Paths are relative to the folder of the file that names them. Sizes are octets,
// as a number or as text with a unit ("50MiB", "1GB"); durations are text ("60s",
// "5m", "1h30m"); networks are CIDR or single addresses.
//
// # BUGS
//
// Only HCL's native syntax is read, not its JSON form. Functions are env, file,
// duration, lower, contains, length and endswith; there are no variables but the
// facts of a when expression. That a maildir template, a users file and its
// domains fit together is not checked here.
package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Config is a whole configuration, complete and checked in itself. Whether
// certificates can be loaded, users files parsed and plugins configured is
// found out by who does it.
type Config struct {
	File     string // config.hcl as named, absolute
	Hostname string // our name in greetings, Received and EHLO
	State    string // directory for locks, the commit log and the control socket
	Policies string // directory of *.hcl files, "" if there is none
	Sync     string // "auto", "syncfs" or "fsync"

	TLS       *TLS // nil: no TLS at all
	Domains   []Domain
	Listeners []Listener

	Trusted []netip.Prefix // may relay and are not limited
	Proxy   []netip.Prefix // must send a PROXY header
	XClient []netip.Prefix // may use XCLIENT

	Sending Sending // mail for other hosts

	Limits Limits
	Log    Log
	Tape   *Tape `json:",omitempty"` // nil: nothing is recorded for a replay
	RunAs  RunAs

	Resolvers []netip.AddrPort // name servers; nil: those of this machine
	DNSSEC    bool             // they validate, and nobody stands between them and us

	Metrics string // "HOST:PORT" where Prometheus may ask, "" for nowhere

	Lists  []List
	Policy []Policy

	Rollout *Rollout `json:",omitempty"` // nil: everybody is judged by Policy
	Shadow  *Rollout `json:",omitempty"` // watches everybody, and decides nothing; nil: nobody watches
	Files   Files    `json:"-"`          // what was read; see LoadFiles
	Digest  string   // SHA-256 of all that was read, with what env and file said; first 12 hexadecimal digits
}

// TLS names the certificates.
type TLS struct {
	Cert, Key  string // PEM files of the main certificate
	MinVersion string // "1.2" or "1.3"
	Names      []Certificate
	Where      string
}

// Certificate is one for another name that clients ask for (SNI).
type Certificate struct {
	Name      string // "mail.example.com" or "*.example.com"
	Cert, Key string
	Where     string
}

// Domain is one that mail is delivered for.
type Domain struct {
	Name      string              // as written
	Maildir   string              // template: %d domain, %n user, %u user@domain, %% a percent sign
	Users     string              // passwd-file
	Aliases   map[string][]string // local part in lower case to addresses or local parts
	CatchAll  string              // address for every other local part, "" for none
	Separator string              // between user and detail, "" for none
	Folders   bool                // the detail names a folder of the user's, if there is one
	Quota     Quota
	Where     string
}

// Quota is what each user of a domain may store. The zero Quota has no limits.
type Quota struct {
	Storage      int64 // octets
	Messages     int64
	Grace        int64 // octets by which one message may go beyond Storage
	GracePercent int   // of Storage, likewise
	Rules        []string
	Warn         []int // percents at which the user gets mail about it
	Permanent    bool  // mail for a full mailbox is refused for good
}

// Listener is one door.
type Listener struct {
	Name      string
	Profile   string   // "mx", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "policy"
	Addresses []string // "HOST:PORT" or "unix:PATH"
	TLS       string   // "starttls", "required", "none"; what the profile implies if not given
	Loopback  bool     // allow_plaintext_auth_on_loopback
	Without   []string // EHLO keywords that are not offered
	Where     string
}

// Limits bounds what clients may cost.
type Limits struct {
	MessageSize      int64         // octets, inclusive
	Recipients       int           // of one message
	PerClient        int           // connections of one client at once
	Rate             int           // connections of one client in RatePer
	RatePer          time.Duration //
	Connections      int           // of all clients at once, for each protocol
	SoftErrors       int           // refused commands until replies slow down
	HardErrors       int           // refused commands until the session ends
	Idle             time.Duration // SMTP: one command
	Data             time.Duration // SMTP: one message
	MinRate          int64         // octets per second of a message
	Session          time.Duration // SMTP: whole session
	GreetDelay       time.Duration // wait before the greeting on mx
	PerUser          int           // IMAP and POP3 connections of one user at once
	ShutdownPatience time.Duration // how long a stop waits for sessions in DATA
	ReloadGrace      time.Duration // how long sessions of an earlier generation may go on
}

// Log says what is logged and how, on standard error.
type Log struct {
	Format    string // "text" or "json"
	Level     string // "debug", "info", "warn", "error"
	Decisions bool   // write STATE/decisions

	DecisionsMask string        // what becomes of addresses: "none", "hash" or "drop"
	DecisionsKeep time.Duration // how long files are kept
	DecisionsSize int64         // octets of all of them
}

// Rollout is another version of the policies, for a part of the clients.
type Rollout struct {
	Name     string
	Policies string  // folder, or bundle, as written
	Percent  float64 // of the clients
	Sticky   string  // what decides: "client-prefix" or "session"
	Guard    Guard
	Where    string

	Policy []Policy
	Lists  []List
	Digest string // of the policies
}

// Guard says when a rollout is taken back. What is 0 does not count.
type Guard struct {
	RejectRate float64       // of its sessions, in which something is refused
	ErrorRate  float64       // of its calls, that fail
	P99        time.Duration // of its calls
	Sessions   int           // that it must have seen before
}

// Tape says how what checks were asked is recorded.
type Tape struct {
	Size   int64         // octets of all files
	Keep   time.Duration // how long files are kept
	Bodies bool          // what checks read of bodies is kept, not only its digest
	Mask   string        // what becomes of addresses: "none", "hash" or "drop"
	Key    string        `json:"-"` // the files are sealed with it; "": they are plain
}

// RunAs is the account that the server becomes after it has bound its ports.
type RunAs struct {
	User, Group string // "" : stay who we are
	AllowRoot   bool   // serve as root
}

// Policy is a policy block. Its checks have no plugins yet.
type Policy struct {
	Name    string
	On      []string
	ReplyAt policy.Stage // 0: the default
	Exempt  policy.Exempt

	SoftBounce bool // every 5xx becomes a 4xx
	Checks     []Check
	Where      string
}

// Check is a check block.
type Check struct {
	Name   string
	Plugin string // name of a plugin that is built in, or the path of a module
	Path   bool   // Plugin is a path

	Delegate string        // "unix:PATH" or "inet:HOST:PORT" of a policy daemon that is asked instead of a plugin
	Milter   string        // likewise of a milter
	Timeout  time.Duration // of one question; 0: 5 s of a plugin, 10 s of a daemon, 5 min of a milter
	At       []policy.Stage
	Allow    []string
	Lists    []string            // names of Config.Lists
	With     map[string][]string // flattened: "field" or "outer.inner" to values
	OnError  policy.Action
	Observe  bool
	ReplyAt  policy.Stage                      // 0: the policy's
	When     func(*policy.Event) (bool, error) `json:"-"` // nil: always
	WhenText string                            `json:",omitempty"`

	Where     string            // of the block
	WithWhere map[string]string // of each field of With, and of the maps around them
}

// profiles are the values of a listener's profile.
var profiles = []string{"mx", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "policy"}

// Profiles are the values of a listener's profile.
func Profiles() []string { return slices.Clone(profiles) }

// Implicit reports whether profile means TLS from the first octet.
func Implicit(profile string) bool {
	return profile == "submissions" || profile == "imaps" || profile == "pop3s"
}
