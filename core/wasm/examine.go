package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/wafermail/wafer/sdk/abi"
)

// Examination is everything that can be said of a module without a
// configuration.
type Examination struct {
	Size     int    // octets
	Digest   string // SHA-256 in hexadecimal
	Imports  []Import
	Memory   int64     // octets that it begins with
	Manifest *Manifest // nil: it did not come to that

	// Refused is why no check could load it, nil if one could.
	Refused error
}

// Import is a host function that a module calls.
type Import struct {
	Module, Name string
	Grant        string // that it needs, "" for none
	Known        bool   // this server has it
}

// Examine looks at a module as Load would.
func (h *Host) Examine(ctx context.Context, code []byte) *Examination {
	sum := sha256.Sum256(code)
	x := &Examination{Size: len(code), Digest: hex.EncodeToString(sum[:])}
	if len(code) <= abi.MaxModule {
		if m, err := parseModule(code); err == nil {
			x.Memory = int64(m.memMin) * pageSize
			for _, f := range m.imports {
				known, ok := hostFunctions[f.module+"."+f.name]
				x.Imports = append(x.Imports, Import{f.module, f.name, known.grant, ok})
			}
		}
	}
	x.Manifest, x.Refused = h.Inspect(ctx, code)
	return x
}

// Needs are the grants without which no check can load the module.
func (x *Examination) Needs() (need []string) {
	if x.Manifest == nil {
		return nil
	}
	for _, g := range grants {
		wanted := slices.ContainsFunc(x.Manifest.Grants, func(m Grant) bool { return m.Name == g && !m.Optional })
		imported := slices.ContainsFunc(x.Imports, func(i Import) bool { return i.Grant == g })
		if wanted || imported && !x.Manifest.optional(g) {
			need = append(need, g)
		}
	}
	return need
}

// Missing are the config fields without which no check can load the module.
func (x *Examination) Missing() (fields []string) {
	if x.Manifest == nil {
		return nil
	}
	for _, f := range x.Manifest.Fields {
		if f.Required {
			fields = append(fields, f.Name)
		}
	}
	return fields
}
