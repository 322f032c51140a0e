package oracle

import (
	"fmt"
	"slices"
	"strings"
)

// settings are Postfix parameters by name.
type settings map[string]string

func (s settings) or(name, fallback string) string {
	if v, ok := s[name]; ok {
		return v
	}
	return fallback
}

// restrictions says which check stands for a restriction: plugin, grants, config.
var restrictions = map[string]struct{ plugin, allow, with string }{
	"reject_invalid_helo_hostname":                 {"helo", "", `reject = ["invalid"]`},
	"reject_non_fqdn_helo_hostname":                {"helo", "", `reject = ["not-fqdn"]`},
	"reject_unknown_helo_hostname":                 {"helo", "dns", `reject = ["unknown"]`},
	"reject_non_fqdn_sender":                       {"sender", "", `reject = ["not-fqdn"]`},
	"reject_unknown_sender_domain":                 {"sender", "dns", `reject = ["unknown-domain"]`},
	"reject_unlisted_sender":                       {"sender", "", `reject = ["unlisted"]`},
	"reject_sender_login_mismatch":                 {"sender", "", `reject = ["login-mismatch"]`},
	"reject_authenticated_sender_login_mismatch":   {"sender", "", `reject = ["authenticated-login-mismatch"]`},
	"reject_unauthenticated_sender_login_mismatch": {"sender", "", `reject = ["unauthenticated-login-mismatch"]`},
	"reject_known_sender_login_mismatch":           {"sender", "", `reject = ["known-login-mismatch"]`},
	"reject_unauth_destination":                    {"recipient", "", `reject = ["unauth-destination"]`},
	"defer_unauth_destination":                     {"recipient", "", `reject = ["unauth-destination"], relay_code = 454`},
	"reject_non_fqdn_recipient":                    {"recipient", "", `reject = ["not-fqdn"]`},
	"reject_unknown_recipient_domain":              {"recipient", "dns", `reject = ["unknown-domain"]`},
	"reject_unlisted_recipient":                    {"recipient", "", `reject = ["unlisted"]`},
	"reject_unauth_pipelining":                     {"client", "", `reject = ["early-talker"]`},
	"reject_multi_recipient_bounce":                {"recipient", "", `reject = ["multi-recipient-bounce"]`},
	"reject_unknown_client_hostname":               {"client", "", `reject = ["unknown"]`},
	"reject_unknown_reverse_client_hostname":       {"client", "", `reject = ["unknown-reverse"]`},
}

// lists are Postfix's restriction lists in the order in which they are asked,
// each with the stage that it belongs to.
var lists = []struct{ name, stage, fallback string }{
	{"client", "connect", ""},
	{"helo", "helo", ""},
	{"sender", "mail", ""},
	{"relay", "rcpt", ""},
	{"recipient", "rcpt", ""},
	{"data", "data", ""},
}

// translate writes policies for a Postfix configuration: one policy for each
// list, because an OK ends only its own. Restrictions that nothing here stands
// for are returned.
func translate(s settings) (hcl string, missing []string) {
	var b strings.Builder
	delayed := s.or("smtpd_delay_reject", "yes") == "yes"
	if s["smtpd_helo_required"] == "yes" {
		b.WriteString("policy \"helo_required\" {\n  on = [\"mx\"]\n  reply_at = \"mail\"\n\n  check \"missing\" {\n    plugin = \"helo\"\n    at = \"mail\"\n    with = { reject = [\"missing\"] }\n  }\n}\n")
	}
	for _, l := range lists {
		words := strings.FieldsFunc(s.or("smtpd_"+l.name+"_restrictions", ""), func(r rune) bool { return r == ',' || r == ' ' })
		if l.name == "recipient" && s.or("smtpd_reject_unlisted_recipient", "yes") == "yes" {
			words = append(words, "*reject_unlisted_recipient") // implicit, whatever the list permits
		}
		if len(words) == 0 {
			continue
		}
		stage := l.stage
		if delayed && stage != "data" && (slices.Contains(words, "permit_sasl_authenticated") || l.name == "sender") {
			stage = "rcpt" // where Postfix asks: a login may have come since
		}
		reply := "rcpt"
		if !delayed && stage != "rcpt" && stage != "data" {
			reply = stage
		}
		fmt.Fprintf(&b, "policy \"%s\" {\n  on       = [\"mx\"]\n  reply_at = %q\n", l.name, reply)
		var when []string
		for i, w := range words {
			switch w {
			case "permit_mynetworks":
				when = append(when, "!trusted")
				continue
			case "permit_sasl_authenticated":
				when = append(when, "!authenticated")
				continue
			}
			name, always := strings.CutPrefix(w, "*")
			r, ok := restrictions[name]
			if !ok {
				missing = append(missing, name)
				continue
			}
			fmt.Fprintf(&b, "\n  check \"c%d\" {\n    plugin = %q\n    at     = %q\n    with   = { %s }\n", i, r.plugin, stage, r.with)
			if r.allow != "" {
				fmt.Fprintf(&b, "    allow  = [%q]\n", r.allow)
			}
			if len(when) > 0 && !always {
				fmt.Fprintf(&b, "    when   = %s\n", strings.Join(when, " && "))
			}
			b.WriteString("  }\n")
		}
		b.WriteString("}\n")
	}
	return b.String(), missing
}
