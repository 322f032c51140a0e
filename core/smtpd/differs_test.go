package smtpd

// postfixDiffers says where the engine answers unlike Postfix 3.7, and why. The
// keys are a row's config and name.
var postfixDiffers = map[string]string{
	"base help":               "HELP is in RFC 5321 §4.1.1.8",
	"base vrfy-local":         "VRFY tells nothing about who exists (RFC 5321 §7.3)",
	"base vrfy":               "VRFY tells nothing about who exists (RFC 5321 §7.3)",
	"base line-10000":         "a command line is refused beyond 4096 octets, not cut",
	"limits line-5000":        "a command line is refused beyond the limit, not cut",
	"base binary-junk":        "octet 0x16 begins a TLS handshake: 421 and close",
	"base plain-authzid":      "submission needs authentication at MAIL",
	"base plain-bad-password": "submission needs authentication at MAIL",
	"base plain-not-base64":   "501 for what cannot be decoded (RFC 4954 §4)",
	"base plain-equals":       "501 for a malformed exchange",
	"base plain-empty-line":   "501 for a malformed exchange",
	"base plain-malformed":    "501 for a malformed exchange",
	"base before-ehlo":        "EHLO comes first (RFC 5321 §4.1.4)",
	"base unknown-mech":       "504 for an unknown mechanism (RFC 4954 §4)",
	"tls injection-mail":      "commands put in front of the handshake end the session",
}
