// Package sdk is what a policy plugin in Go is written with. A plugin is a
// WebAssembly module that a mail server asks at the stages of an SMTP session;
// this package carries the events in and the verdicts out.
//
// A plugin declares what it is and returns, for one configuration, the function
// that judges:
//
//	package main
//
//	import "github.com/wafermail/wafer/sdk"
//
//	var plugin = sdk.Plugin{
//		ID:      "org.example.no-ip",
//		Version: "1.0.0",
//		Help:    "refuses clients that greet with an address literal",
//		Stages:  []sdk.Stage{sdk.Helo},
//		Fields: []sdk.Field{
//			{Name: "text", Type: sdk.String, Default: []string{"Use a name"}, Help: "what to reply"},
//		},
//		Configure: func(c *sdk.Config) (sdk.Judge, error) {
//			text := c.String("text")
//			return func(e *sdk.Event) sdk.Verdict {
//				if helo := e.Helo(); helo != "" && helo[0] == '[' {
//					return sdk.Reject(550, "5.7.1", text).Because("helo-literal")
//				}
//				return sdk.Next()
//			}, nil
//		},
//	}
//
//	var _ = sdk.Serve(&plugin)
//
//	func main() {}
//
// It is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -ldflags="-s -w" -buildmode=c-shared -o no-ip.wasm .
//
// and tested with plain "go test": on every other platform the host is a Fake,
// with a table of DNS records, counters, state, lists, a message, a clock and a
// captured log.
//
// A call of the host that the plugin never makes is not in the module, so a
// module imports only what its code uses and the operator grants only that.
//
// # BUGS
//
// A plugin's package main must not read files, sockets or arguments: the host
// has none for it. Time stands still during a call, and a sleep returns at once.
// Instances are many and short-lived: keep what has to last in counters and state, not in variables.
package sdk

import "github.com/wafermail/wafer/sdk/abi"

// Stage is a moment at which a plugin is asked.
type Stage uint8

// The stages, in the order in which a message meets them.
const (
	Connect  Stage = abi.StageConnect
	Helo     Stage = abi.StageHelo
	StartTLS Stage = abi.StageStartTLS
	Auth     Stage = abi.StageAuth
	Mail     Stage = abi.StageMail
	Rcpt     Stage = abi.StageRcpt
	Data     Stage = abi.StageData
	Message  Stage = abi.StageMessage
	Queued   Stage = abi.StageQueued
	Route    Stage = abi.StageRoute
	Bounce   Stage = abi.StageBounce
)

// Plugin is a plugin's declaration.
type Plugin struct {
	ID      string // reversed domain name, lower case: "org.example.no-ip"
	Version string // "1.0.0"
	Help    string // one line: what it does
	Stages  []Stage
	Grants  []Grant
	Fields  []Field

	// Configure returns the judge for one configuration, or an error that
	// begins with the path of the offending field: see Config.Errorf.
	Configure func(c *Config) (Judge, error)
}

// Judge answers one event. It must not keep e.
type Judge func(e *Event) Verdict

// Names of the grants.
const (
	GrantDNS     = abi.GrantDNS     // for Event.DNS
	GrantCount   = abi.GrantCount   // for Event.Count
	GrantMessage = abi.GrantMessage // for Event.Header and Event.Body
	GrantState   = abi.GrantState   // for Event.StateGet, StatePut and StateSeen
	GrantList    = abi.GrantList    // for Event.List
)

// Grant is something that the operator must allow before the module is loaded.
type Grant struct {
	Name     string // one of the Grant constants
	Optional bool   // without it the calls fail with ErrDenied, see Config.Granted
	Help     string // one line: what for
}

// Type is the type of a config field.
type Type uint8

// The types.
const (
	String   Type = abi.TypeString
	Int      Type = abi.TypeInt
	Bool     Type = abi.TypeBool
	Duration Type = abi.TypeDuration // "90s", "5m", "2d"
	Size     Type = abi.TypeSize     // octets: "512", "10MiB"
	List     Type = abi.TypeList     // of strings
)

// Field is one field of a plugin's config. The host checks values against it
// before Configure runs and fills in the default.
type Field struct {
	Name     string
	Type     Type
	Required bool
	Default  []string // one value, or several for a List
	Choices  []string // the only values allowed, for String and List
	Help     string   // one line
}

// manifest returns p as a Manifest message.
func (p *Plugin) manifest() []byte {
	var b []byte
	b = appendString(b, abi.ManifestID, p.ID)
	b = appendString(b, abi.ManifestVersion, p.Version)
	b = appendString(b, abi.ManifestHelp, p.Help)
	for _, s := range p.Stages {
		b = appendUint(b, abi.ManifestStage, uint64(s))
	}
	for _, g := range p.Grants {
		var m []byte
		m = appendString(m, abi.GrantName, g.Name)
		if g.Optional {
			m = appendUint(m, abi.GrantOptional, 1)
		}
		m = appendString(m, abi.GrantHelp, g.Help)
		b = appendBytes(b, abi.ManifestGrant, m)
	}
	for _, f := range p.Fields {
		var m []byte
		m = appendString(m, abi.FieldName, f.Name)
		m = appendUint(m, abi.FieldType, uint64(f.Type))
		if f.Required {
			m = appendUint(m, abi.FieldRequired, 1)
		}
		for _, v := range f.Default {
			m = appendBytes(m, abi.FieldDefault, []byte(v))
		}
		for _, v := range f.Choices {
			m = appendBytes(m, abi.FieldChoice, []byte(v))
		}
		m = appendString(m, abi.FieldHelp, f.Help)
		b = appendBytes(b, abi.ManifestField, m)
	}
	return b
}
