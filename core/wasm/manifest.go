package wasm

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// Manifest is what a module says about itself.
type Manifest struct {
	ID      string // "org.example.dnsbl"
	Version string
	Help    string // one line
	Stages  []policy.Stage
	Grants  []Grant
	Fields  []Field
	Digest  string // SHA-256 of the module in hexadecimal
	ABI     uint32 // major<<16 | minor that it was written for
	Size    int    // octets of the module
}

// Grant is a grant that a plugin asks for.
type Grant struct {
	Name     string
	Optional bool // the plugin works without, in some configurations
	Help     string
}

// Type is the type of a config field.
type Type uint8

// The types.
const (
	String   Type = abi.TypeString
	Int      Type = abi.TypeInt
	Bool     Type = abi.TypeBool
	Duration Type = abi.TypeDuration
	Size     Type = abi.TypeSize
	List     Type = abi.TypeList
)

// String is the type in words, for error messages.
func (t Type) String() string {
	return [...]string{"?", "a string", "a whole number", "true or false",
		`a duration such as "90s", "5m" or "2d"`, `a size such as 512 or "10MiB"`, "a list of strings"}[min(t, abi.LastType)]
}

// Field is one field of a plugin's config.
type Field struct {
	Name     string
	Type     Type
	Required bool
	Default  []string
	Choices  []string
	Help     string
}

// grants are the grants that there are.
var grants = []string{abi.GrantCount, abi.GrantDNS, abi.GrantList, abi.GrantMessage, abi.GrantState}

func (m *Manifest) optional(grant string) bool {
	return slices.ContainsFunc(m.Grants, func(g Grant) bool { return g.Name == grant && g.Optional })
}

// decodeManifest reads and checks a guest's Manifest. The result shares no
// memory with b.
func decodeManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	r := wireReader{b: b}
	for {
		field, wire, n, p, ok := r.next()
		if !ok {
			break
		}
		switch {
		case field == abi.ManifestID && wire == wireBytes:
			m.ID = string(p)
		case field == abi.ManifestVersion && wire == wireBytes:
			m.Version = string(p)
		case field == abi.ManifestHelp && wire == wireBytes:
			m.Help = string(p)
		case field == abi.ManifestStage && wire == wireVarint:
			if n == 0 || n > abi.LastStage || slices.Contains(m.Stages, policy.Stage(n)) {
				return nil, fmt.Errorf("manifest: stage %d is unknown or there twice", n)
			}
			m.Stages = append(m.Stages, policy.Stage(n))
		case field == abi.ManifestGrant && wire == wireBytes:
			if err := m.grant(p); err != nil {
				return nil, err
			}
		case field == abi.ManifestField && wire == wireBytes:
			if err := m.field(p); err != nil {
				return nil, err
			}
		case field <= abi.ManifestField:
			return nil, fmt.Errorf("manifest: field %d with wire type %d", field, wire)
		}
	}
	switch {
	case r.bad:
		return nil, fmt.Errorf("manifest: malformed message of %d octets", len(b))
	case !isName(m.ID, "."):
		return nil, fmt.Errorf("manifest: id %.80q, want lower-case words joined by \".\" or \"-\"", m.ID)
	case m.Version == "" || len(m.Version) > abi.MaxIdent || !isLine(m.Version) || strings.Contains(m.Version, " "):
		return nil, fmt.Errorf("manifest: version %.80q", m.Version)
	case len(m.Help) > abi.MaxHelp || !isLine(m.Help):
		return nil, fmt.Errorf("manifest: help is no line of at most %d octets", abi.MaxHelp)
	case len(m.Stages) == 0:
		return nil, fmt.Errorf("manifest: no stages, so the plugin would never be asked")
	}
	return m, nil
}

func (m *Manifest) grant(b []byte) error {
	var g Grant
	r := wireReader{b: b}
	for {
		field, wire, n, p, ok := r.next()
		if !ok {
			break
		}
		switch {
		case field == abi.GrantName && wire == wireBytes:
			g.Name = string(p)
		case field == abi.GrantOptional && wire == wireVarint:
			g.Optional = n != 0
		case field == abi.GrantHelp && wire == wireBytes:
			g.Help = string(p)
		}
	}
	switch {
	case r.bad || len(m.Grants) >= abi.MaxGrants || len(g.Help) > abi.MaxHelp || !isLine(g.Help):
		return fmt.Errorf("manifest: grant %.80q is malformed or one too many", g.Name)
	case !slices.Contains(grants, g.Name):
		return fmt.Errorf("manifest: grant %.80q is unknown; this server has %s", g.Name, strings.Join(grants, ", "))
	case slices.ContainsFunc(m.Grants, func(o Grant) bool { return o.Name == g.Name }):
		return fmt.Errorf("manifest: grant %q twice", g.Name)
	}
	m.Grants = append(m.Grants, g)
	return nil
}

func (m *Manifest) field(b []byte) error {
	f := Field{}
	r := wireReader{b: b}
	for {
		field, wire, n, p, ok := r.next()
		if !ok {
			break
		}
		switch {
		case field == abi.FieldName && wire == wireBytes:
			f.Name = string(p)
		case field == abi.FieldType && wire == wireVarint:
			f.Type = Type(min(n, abi.LastType+1))
		case field == abi.FieldRequired && wire == wireVarint:
			f.Required = n != 0
		case field == abi.FieldDefault && wire == wireBytes:
			f.Default = append(f.Default, string(p))
		case field == abi.FieldChoice && wire == wireBytes:
			f.Choices = append(f.Choices, string(p))
		case field == abi.FieldHelp && wire == wireBytes:
			f.Help = string(p)
		}
	}
	switch {
	case r.bad || len(m.Fields) >= abi.MaxFields || len(f.Default) > abi.MaxFields || len(f.Choices) > abi.MaxFields:
		return fmt.Errorf("manifest: config field %.80q is malformed or one too many", f.Name)
	case !isName(f.Name, "._"):
		return fmt.Errorf("manifest: config field name %.80q", f.Name)
	case f.Type == 0 || f.Type > abi.LastType:
		return fmt.Errorf("manifest: config field %s has an unknown type", f.Name)
	case len(f.Help) > abi.MaxHelp || !isLine(f.Help):
		return fmt.Errorf("manifest: help of config field %s is no line of at most %d octets", f.Name, abi.MaxHelp)
	case slices.ContainsFunc(m.Fields, func(o Field) bool { return o.Name == f.Name }):
		return fmt.Errorf("manifest: config field %s twice", f.Name)
	}
	for _, s := range slices.Concat(f.Default, f.Choices) {
		if len(s) > abi.MaxHelp || !isLine(s) {
			return fmt.Errorf("manifest: default or choice of config field %s is no line", f.Name)
		}
	}
	if f.Default != nil {
		if err := f.check(f.Default); err != nil {
			return fmt.Errorf("manifest: default of config field %s: %w", f.Name, err)
		}
	}
	m.Fields = append(m.Fields, f)
	return nil
}

// isName reports whether s is lower-case letters and digits, with "-" and the
// characters of joints between them.
func isName(s, joints string) bool {
	if s == "" || len(s) > abi.MaxIdent {
		return false
	}
	joint := true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			joint = false
		case joint:
			return false
		case c == '-', strings.IndexByte(joints, c) >= 0:
			joint = true
		default:
			return false
		}
	}
	return !joint
}

// isLine reports whether s is UTF-8 without control characters.
func isLine(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return false
		}
	}
	return true
}
