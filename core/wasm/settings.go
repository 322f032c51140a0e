package wasm

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// ConfigError is what is wrong with one field of a check's config.
type ConfigError struct {
	Field string // path of the field, as in the check's "with"
	Text  string
}

// Error is "with.FIELD: TEXT".
func (e *ConfigError) Error() string { return "with." + e.Field + ": " + e.Text }

// Settings checks a config against the manifest's fields and fills in
// defaults. Values are text: numbers in decimal, booleans "true" or "false",
// lists with one value an element. The error joins one ConfigError for each
// fault.
func (m *Manifest) Settings(config map[string][]string) (map[string][]string, error) {
	var errs []error
	out := make(map[string][]string, len(m.Fields))
	for _, f := range m.Fields {
		v, given := config[f.Name]
		switch {
		case !given && f.Required:
			errs = append(errs, &ConfigError{f.Name, "is required: " + f.Help})
		case !given && f.Default != nil:
			out[f.Name] = f.Default
		case given:
			if err := f.check(v); err != nil {
				errs = append(errs, &ConfigError{f.Name, err.Error()})
			}
			out[f.Name] = v
		}
	}
	names := make([]string, 0, len(config))
	for name := range config {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(m.Fields, func(f Field) bool { return f.Name == name }) {
			errs = append(errs, &ConfigError{name, "unknown field; " + m.ID + " has " + m.fieldNames()})
		}
	}
	return out, errors.Join(errs...)
}

func (m *Manifest) fieldNames() string {
	if len(m.Fields) == 0 {
		return "none"
	}
	var names []string
	for _, f := range m.Fields {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// check reports why v is no value of f.
func (f *Field) check(v []string) error {
	if f.Type != List && len(v) != 1 {
		return fmt.Errorf("want %s, not %d values", f.Type, len(v))
	}
	for _, s := range v {
		ok := true
		switch f.Type {
		case Int:
			_, err := strconv.ParseInt(s, 10, 64)
			ok = err == nil
		case Bool:
			ok = s == "true" || s == "false"
		case Duration:
			ok = isDuration(s)
		case Size:
			ok = isSize(s)
		}
		if !ok {
			return fmt.Errorf("want %s, not %q", f.Type, s)
		}
		if f.Choices != nil && !slices.Contains(f.Choices, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(f.Choices, ", "))
		}
	}
	return nil
}

// isDuration reports whether s is a duration that the SDKs read: Go's form
// with days in front.
func isDuration(s string) bool {
	var days time.Duration
	if d, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(d, 10, 16)
		if err != nil {
			return false
		}
		if days = time.Duration(n) * 24 * time.Hour; rest == "" {
			return true
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	return err == nil && d >= 0 && days+d >= 0 // the sum may overflow
}

// isSize reports whether s is a number of octets, with or without a unit.
func isSize(s string) bool {
	unit := uint64(1)
	for i, suffix := range [...]string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimRight(rest, " "), 1<<(10*(i+1))
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return err == nil && n <= (1<<63-1)/unit
}

// encodeConfig is the Config message that a guest is configured with.
func encodeConfig(settings map[string][]string, granted []string, check string) []byte {
	keys := make([]string, 0, len(settings))
	for k := range settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b []byte
	for _, k := range keys {
		e := appendElement(nil, abi.EntryKey, k)
		for _, v := range settings[k] {
			e = appendElement(e, abi.EntryValue, v)
		}
		b = appendElement(b, abi.ConfigEntry, string(e))
	}
	for _, g := range granted {
		b = appendElement(b, abi.ConfigGrant, g)
	}
	return appendElement(b, abi.ConfigCheck, check)
}
