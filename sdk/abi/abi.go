// Package abi holds the numbers of wafer's plugin ABI: version, names of
// exports and imports, field numbers, codes and limits, and nothing else. Host
// and guests share it. ABI.md beside it is the specification, wafer.proto the
// messages in protobuf's notation.
//
// # BUGS
//
// Numbers are never reused. A number that is missing here was never given out.
package abi

// The version that this package describes. Export wafer_abi returns
// Major<<16 | Minor of the version that a module was written for. A host
// refuses a newer major; a minor only adds fields, functions and stages.
const (
	Major   = 1
	Minor   = 0
	Version = Major<<16 | Minor
)

// Module is the name that imports of this major version come from.
const Module = "wafer1"

// WASI is the other module that may be imported; the host answers it bare:
// no files, no arguments, no environment but GOGC.
const WASI = "wasi_snapshot_preview1"

// Names of the exports.
const (
	ExportMemory     = "memory"
	ExportABI        = "wafer_abi"       // () → i32
	ExportBuffer     = "wafer_buffer"    // (cap i32) → i32
	ExportDescribe   = "wafer_describe"  // () → i64, packed Manifest
	ExportConfigure  = "wafer_configure" // (len i32) → i64, 0 or packed error text
	ExportEvent      = "wafer_event"     // (stage i32, len i32) → i64, 0, -1 or packed Verdict
	ExportInitialize = "_initialize"     // () → (), optional
	ExportStart      = "_start"          // refused: a policy is not a command
)

// Names of the imports of Module. Parameters are i32 if nothing else is said;
// p, n is an input's address and length, buf, cap a buffer for the output.
const (
	ImportLog       = "log"        // (level, p, n)
	ImportNow       = "now"        // () → i64
	ImportRandom    = "random"     // (buf, cap) → i32
	ImportGet       = "get"        // (p, n, buf, cap) → i32
	ImportHeader    = "header"     // (p, n, index, buf, cap) → i32, grant message
	ImportBody      = "body"       // (off i64, buf, cap) → i32, grant message
	ImportDNS       = "dns"        // (p, n, buf, cap) → i32, grant dns
	ImportCount     = "count"      // (p, n, delta i64, window i64) → i64, grant count
	ImportStateGet  = "state_get"  // (p, n, buf, cap) → i32, grant state
	ImportStatePut  = "state_put"  // (p, n, value, len, ttl i64) → i32, grant state
	ImportStateSeen = "state_seen" // (p, n, ttl i64, buf, cap) → i32, grant state
	ImportList      = "list"       // (name, len, p, n, buf, cap) → i32, grant list
	ImportMetric    = "metric"     // (p, n, delta i64)
)

// Names of the grants.
const (
	GrantDNS     = "dns"
	GrantCount   = "count"
	GrantMessage = "message"
	GrantState   = "state"
	GrantList    = "list"
)

// Results of imports that are less than zero.
const (
	NotFound  = -1 // no such fact, header field, key or message
	Denied    = -2 // the check was not granted this
	Timeout   = -3 // the call's time for input and output is used up
	BadArg    = -4 // pointer, length or value out of range
	Temporary = -5 // try later
	Quota     = -6 // the call's allowance is used up
	NoList    = -7 // the check names no such list
)

// Results of wafer_event that are no packed pointer.
const (
	EventNext  = 0  // no opinion and no effects
	EventError = -1 // the guest has no verdict
)

// Stages, the first argument of wafer_event.
const (
	StageConnect  = 1
	StageHelo     = 2
	StageStartTLS = 3
	StageAuth     = 4
	StageMail     = 5
	StageRcpt     = 6
	StageData     = 7
	StageMessage  = 8
	StageQueued   = 9
	StageRoute    = 10
	StageBounce   = 11
	LastStage     = StageBounce
)

// Actions of a Verdict.
const (
	ActionNext          = 0
	ActionAccept        = 1
	ActionReject        = 2
	ActionDefer         = 3
	ActionDisconnect    = 4
	ActionDiscard       = 5
	ActionHold          = 6
	ActionQuarantine    = 7
	ActionDeferIfPermit = 8
	ActionDeferIfReject = 9
	LastAction          = ActionDeferIfReject
)

// Fields of Event.
const (
	EventStage      = 1  // varint
	EventTime       = 2  // varint, ms since 1970
	EventSession    = 3  // string
	EventDoor       = 4  // string
	EventProtocol   = 5  // string
	EventClient     = 6  // string, an IP address
	EventClientPort = 7  // varint
	EventClientName = 8  // string
	EventFlags      = 9  // varint, the Flag bits
	EventHelo       = 10 // bytes
	EventUser       = 11 // bytes
	EventSender     = 12 // string
	EventRecipient  = 13 // string
	EventRcptCount  = 14 // varint, accepted so far
	EventSize       = 15 // varint, octets
	EventHostname   = 16 // string
	EventQueueID    = 17 // string
	LastEventField  = EventQueueID
)

// Bits of Event's flags.
const (
	FlagTrusted     = 1 << 0
	FlagEarlyTalker = 1 << 1
	FlagExtended    = 1 << 2
	FlagTLS         = 1 << 3
	FlagAuthOK      = 1 << 4
	FlagHasSender   = 1 << 5
)

// Names of the facts that import get answers.
const (
	FactServer      = "server"       // "192.0.2.1:25"
	FactReverseName = "reverse-name" // PTR name, verified or not
	FactMechanism   = "mechanism"    // SASL mechanism
	FactTLSVersion  = "tls-version"
	FactTLSCipher   = "tls-cipher"
	FactTLSSNI      = "tls-sni"
	FactRecipients  = "recipients" // accepted so far, one a line

	FactRecipientClass = "recipient-class" // one of the Class constants
	FactSenderClass    = "sender-class"    // one of the Class constants; none for the null reverse-path
	FactSenderOwners   = "sender-owners"   // logins that may use the sender address, one a line
	FactTags           = "tags"            // that checks have added so far, one a line
	FactScore          = "score"           // that checks have added up so far, decimal
	FactAttempts       = "attempts"        // at route and bounce: rounds so far, decimal
	FactReply          = "reply"           // at route and bounce: what the last attempt came to
	FactNotice         = "notice"          // at bounce: "failed", "delayed", "delivered", "relayed"
)

// Values of the class facts.
const (
	ClassLocal   = "local"   // a mailbox or an alias here
	ClassUnknown = "unknown" // a domain of ours without such a mailbox
	ClassRelay   = "relay"   // no domain of ours
)

// Fields of Verdict.
const (
	VerdictAction   = 1 // varint
	VerdictCode     = 2 // varint
	VerdictEnhanced = 3 // string
	VerdictText     = 4 // string
	VerdictReason   = 5 // string
	VerdictMod      = 6 // repeated Mod
	VerdictScore    = 7 // double
)

// Fields of Mod, one modification.
const (
	ModOp     = 1 // varint
	ModName   = 2 // string
	ModValue  = 3 // string
	ModNumber = 4 // varint
)

// Operations of Mod.
const (
	OpPrepend  = 1 // header field name: value on top of the message
	OpTag      = 2 // value
	OpRedirect = 3 // value, an address
	OpBCC      = 4 // value, an address
	OpTarpit   = 5 // number, ms
	OpRoute    = 6 // name: transport; value: next hop
	OpDelay    = 7 // number, ms
	OpLimit    = 8 // number
	LastOp     = OpLimit
)

// Fields of Manifest, the answer to wafer_describe.
const (
	ManifestID      = 1 // string
	ManifestVersion = 2 // string
	ManifestHelp    = 3 // string
	ManifestStage   = 4 // repeated varint
	ManifestGrant   = 5 // repeated Grant
	ManifestField   = 6 // repeated Field
)

// Fields of Manifest's Grant.
const (
	GrantName     = 1 // string
	GrantOptional = 2 // bool
	GrantHelp     = 3 // string
)

// Fields of Manifest's Field.
const (
	FieldName     = 1 // string
	FieldType     = 2 // varint
	FieldRequired = 3 // bool
	FieldDefault  = 4 // repeated string
	FieldChoice   = 5 // repeated string
	FieldHelp     = 6 // string
)

// Types of a config field.
const (
	TypeString   = 1
	TypeInt      = 2
	TypeBool     = 3
	TypeDuration = 4 // "90s", "5m", "1h30m", "2d"
	TypeSize     = 5 // octets, "10MiB"
	TypeList     = 6 // of strings
	LastType     = TypeList
)

// Fields of Config.
const (
	ConfigEntry = 1 // repeated Entry
	ConfigGrant = 2 // repeated string, what the check was granted
	ConfigCheck = 3 // string, name of the check
)

// Fields of Config's Entry.
const (
	EntryKey   = 1 // string, path of the field: "a.b"
	EntryValue = 2 // repeated string
)

// Fields of the DNS batch: a DNSRequest is repeated DNSItem Questions, a
// DNSResponse as many DNSItem Answers in the same order.
const (
	DNSItem        = 1
	QuestionType   = 1 // string: A AAAA MX TXT PTR NS CNAME
	QuestionName   = 2 // string
	AnswerStatus   = 1 // varint
	AnswerRecord   = 2 // repeated string
	DNSOK          = 0
	DNSNotFound    = 1
	DNSTemp        = 2
	MaxDNSQuestion = 256 // in one call of wafer_event
)

// Fields of Sighting, what state_seen answers.
const (
	SightingFirst = 1 // varint, ms since 1970
	SightingLast  = 2 // varint, ms since 1970
	SightingCount = 3 // varint, earlier sightings
	MaxSighting   = 33
)

// Limits that host and guest share.
const (
	MaxModule   = 16 << 20 // octets of a module
	MaxEvent    = 64 << 10 // octets of an Event
	MaxResult   = 64 << 10 // octets of a Verdict, a Manifest or an error text
	MaxConfig   = 1 << 20  // octets of a Config
	MaxLog      = 8 << 10  // octets of log in one call
	MaxMods     = 64       // modifications in one Verdict
	MaxText     = 480      // octets of a Verdict's text
	MaxReason   = 64       // octets of a Verdict's reason
	MaxName     = 77       // octets of a header field's name
	MaxValue    = 8 << 10  // octets of a header field's body
	MaxTag      = 64       // octets of a tag
	MaxKey      = 1 << 10  // octets of a key of counters, state and lists
	MaxState    = 16 << 10 // octets of a value of state
	MaxStateTTL = 90 * 24 * 3600 * 1000
	MaxStateOps = 50       // count, state_get, state_put and state_seen in one call
	MaxRandom   = 64 << 10 // octets of random at once
	MaxMetrics  = 64       // labels of one check
	MaxLabel    = 64       // octets of a metric's label
	MaxWindow   = 31 * 24 * 3600 * 1000
	MaxTarpit   = 60 * 1000
	MaxDelay    = 5 * 24 * 3600 * 1000 // ms
	MaxLimit    = 10_000
	MaxHop      = 255
	MaxStages   = LastStage
	MaxGrants   = 16
	MaxFields   = 256
	MaxHelp     = 256
	MaxIdent    = 64 // octets of an id, a version, a grant's or a field's name
	MaxFactName = 64
)
