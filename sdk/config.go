package sdk

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// Config is one check's configuration, checked against the plugin's Fields and
// with their defaults filled in.
type Config struct {
	values map[string][]string
	grants []string
	check  string
}

// ConfigError is an error that names the field it is about.
type ConfigError struct{ Field, Text string }

// Error is "field: text".
func (e *ConfigError) Error() string { return e.Field + ": " + e.Text }

// Errorf returns an error about field, for Configure to return. The parts are
// joined with spaces.
func (c *Config) Errorf(field string, parts ...string) error {
	return &ConfigError{Field: field, Text: strings.Join(parts, " ")}
}

// Check is the name of the check that is configured.
func (c *Config) Check() string { return c.check }

// Granted reports whether the check was granted name.
func (c *Config) Granted(name string) bool {
	for _, g := range c.grants {
		if g == name {
			return true
		}
	}
	return false
}

// Has reports whether field has a value, given or by default.
func (c *Config) Has(field string) bool { _, ok := c.values[field]; return ok }

// Strings is the value of a List.
func (c *Config) Strings(field string) []string { return c.values[field] }

// String is the value of a String, "" if it has none.
func (c *Config) String(field string) string {
	if v := c.values[field]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Int is the value of an Int, 0 if it has none.
func (c *Config) Int(field string) int64 {
	n, _ := strconv.ParseInt(c.String(field), 10, 64)
	return n
}

// Bool is the value of a Bool.
func (c *Config) Bool(field string) bool { return c.String(field) == "true" }

// Duration is the value of a Duration, 0 if it has none.
func (c *Config) Duration(field string) time.Duration {
	d, _ := parseDuration(c.String(field))
	return d
}

// Size is the value of a Size in octets, 0 if it has none.
func (c *Config) Size(field string) int64 {
	n, _ := parseSize(c.String(field))
	return n
}

// parseDuration is time.ParseDuration with days.
func parseDuration(s string) (time.Duration, bool) {
	var days time.Duration
	if d, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(d, 10, 16)
		if err != nil {
			return 0, false
		}
		if days = time.Duration(n) * 24 * time.Hour; rest == "" {
			return days, true
		}
		s = rest
	}
	d, err := time.ParseDuration(s)
	return days + d, err == nil && d >= 0 && days+d >= 0
}

var sizeUnits = [...]struct {
	suffix string
	octets int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// parseSize reads a number of octets with an optional KiB, MiB, GiB or TiB.
func parseSize(s string) (int64, bool) {
	unit := int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimRight(rest, " "), u.octets
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(n) > (1<<63-1)/unit {
		return 0, false
	}
	return int64(n) * unit, true
}

func decodeConfig(b []byte) (*Config, error) {
	c := &Config{values: make(map[string][]string)}
	r := reader{b: b}
	for {
		field, _, p, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case abi.ConfigGrant:
			c.grants = append(c.grants, string(p))
		case abi.ConfigCheck:
			c.check = string(p)
		case abi.ConfigEntry:
			var key string
			var values []string
			er := reader{b: p}
			for {
				field, _, p, ok := er.next()
				if !ok {
					break
				}
				switch field {
				case abi.EntryKey:
					key = string(p)
				case abi.EntryValue:
					values = append(values, string(p))
				}
			}
			r.bad = r.bad || er.bad
			c.values[key] = values
		}
	}
	if r.bad {
		return nil, errWire
	}
	return c, nil
}
