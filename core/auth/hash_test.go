package auth

import (
	"os/exec"
	"strings"
	"testing"
)

// Hashes of "pw" made by Dovecot 2.3.19's doveadm pw.
func dovecotHashes() map[string]string {
	return map[string]string{
		"argon2id":     "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$70AmveKqEnEfXNJ8rHnTLg$GbDbW0ZOGBp7iart9258TWisN6TVqFdi0O6r3hUZ06Y",
		"argon2i":      "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$rpcKasii/CtQIGZQxMqYXA$IEy9k+ogzB40e48stkem60PaQTUJOtO9eicRgzu0xHM",
		"blf-crypt":    "{BLF-CRYPT}$2y$05$vHj0CgfxnRYNkmjALjopmu3JQX/JCKe91ah48pl2ryVmizs9/A6LC",
		"sha512-crypt": "{SHA512-CRYPT}$6$SsMjuVFE5H.jRgB8$OPj0z2gIYhwYlNKhXbTsA/IQ.aT8529Fg99inKiqxWyXisdZmyxJPrN.G8kRwOdh64JsF3vCaDEr6qfJNmYZb.",
		"sha256-crypt": "{SHA256-CRYPT}$5$oxi8XTkjrrrDZ05M$B/krzZ.mB5.D4q5lxDLASx/seS2xrtipCeZpbd0OTt4",
		"ssha512":      "{SSHA512}oNpYd2KvnMJABw71qFlc9qIv2KHqKzUOvQ48eaLOTJjuIqapVeWQ5UpZvA13iJ3Am3kM/tTkuF9llAk6PLXbFITY7Pw=",
		"ssha256":      "{SSHA256}hgH+XNuIGKv0tEyoAz/inXWfCoLlkntiw1AOHYPudkRvPEf2",
		"plain":        "{PLAIN}pw",
		"cleartext":    "{CLEARTEXT}pw",
		"ssha512 hex":  "{SSHA512.HEX}908add35b513e5ec2e996b00b818c92258ee9b99d3127c954d99ad8946fca9828746e1f6a83639c2b04e80aa16ab71e2f381b389f9c6631572ceba587b66f0bf0237d9a4",
		"ssha256 b64":  "{SSHA256.B64}f7bIPAiTKTw2JCUtQwMgyZCF9nLuF1tGYb/5NJD4gdrl4sD/",
		"bcrypt b64":   "{BLF-CRYPT.B64}JDJ5JDA1JGJ3Z0xpRHNMY3N2Z1pjMlZwN1o3RXVUaGt0eXRPZlJxNFV0TDlwV3pMcjFraG9oNUt0Tkht",
		"plain b64":    "{PLAIN.B64}cHc=",
		"crypt":        "{CRYPT}$2y$05$zQDJ8O3Xahkm8BTIuwy3.uJzgfkAMaktvZnwTsNmNhag/SXj2iQ7O",
		"lower case":   "{sha256-crypt}$5$oxi8XTkjrrrDZ05M$B/krzZ.mB5.D4q5lxDLASx/seS2xrtipCeZpbd0OTt4",
		"no scheme":    "$5$oxi8XTkjrrrDZ05M$B/krzZ.mB5.D4q5lxDLASx/seS2xrtipCeZpbd0OTt4",
	}
}

func TestVerifyDovecotHashes(t *testing.T) {
	for name, hash := range dovecotHashes() {
		t.Run(name, func(t *testing.T) {
			if ok, err := Verify(hash, "pw"); !ok || err != nil {
				t.Errorf("Verify(%s, right) = %v, %v", hash, ok, err)
			}
			if ok, err := Verify(hash, "pW"); ok || err != nil {
				t.Errorf("Verify(%s, wrong) = %v, %v", hash, ok, err)
			}
			h, err := parseHash(hash)
			if err != nil {
				t.Fatal(err)
			}
			decoy, err := parseHash(h.decoy())
			if err != nil {
				t.Fatalf("decoy %s: %v", h.decoy(), err)
			}
			if decoy.cost() != h.cost() {
				t.Errorf("decoy costs %q, want %q", decoy.cost(), h.cost())
			}
			if decoy.match("pw") {
				t.Error("the decoy matches")
			}
		})
	}
}

func TestVerifyRefusesHashes(t *testing.T) {
	key := strings.Repeat("A", 43)
	for _, row := range []struct{ name, hash, want string }{
		{"argon2 memory", "{ARGON2ID}$argon2id$v=19$m=262145,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "more than 262144"},
		{"argon2 work", "{ARGON2ID}$argon2id$v=19$m=262144,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "more than m times t"},
		{"argon2 passes overflow", "{ARGON2ID}$argon2id$v=19$m=8,t=4294967295,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "more than m times t"},
		{"argon2 no passes", "{ARGON2ID}$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "too small"},
		{"argon2 lanes", "{ARGON2ID}$argon2id$v=19$m=65536,t=1,p=255$AAAAAAAAAAAAAAAAAAAAAA$" + key, "p=255"},
		{"argon2 version", "{ARGON2ID}$argon2id$v=16$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "version 19"},
		{"argon2 short key", "{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA", "sensible length"},
		{"argon2d", "{CRYPT}$argon2d$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + key, "none of"},
		{"bcrypt cost", "{BLF-CRYPT}$2y$16$vHj0CgfxnRYNkmjALjopmu3JQX/JCKe91ah48pl2ryVmizs9/A6LC", "cost 16"},
		{"bcrypt cut", "{BLF-CRYPT}$2y$05$vHj0Cgfxn", "malformed"},
		{"bcrypt letters", "{BLF-CRYPT}$2y$xx$vHj0CgfxnRYNkmjALjopmu3JQX/JCKe91ah48pl2ryVmizs9/A6LC", "malformed"},
		{"sha rounds", "{SHA256-CRYPT}$5$rounds=1000001$salt$" + key, "1000001 rounds"},
		{"sha few rounds", "{SHA256-CRYPT}$5$rounds=10$salt$" + key, "from 1000"},
		{"sha long salt", "{SHA256-CRYPT}$5$aaaaaaaaaaaaaaaaa$" + key, "wrong length"},
		{"sha short key", "{SHA512-CRYPT}$6$salt$" + key, "wrong length"},
		{"scheme differs", "{SHA512-CRYPT}$5$salt$" + key, "says {SHA512-CRYPT}"},
		{"weak", "{MD5}abc", "too weak"},
		{"unknown", "{ROT13}abc", "unknown password scheme {ROT13}"},
		{"no scheme", "secret", "no scheme"},
		{"open scheme", "{PLAIN", "closing"},
		{"bad suffix", "{PLAIN.b32}abc", ".b64"},
		{"bad base64", "{SSHA512}***", "not base64"},
		{"bad hex", "{SSHA512.hex}xyz", "not hexadecimal"},
		{"ssha without salt", "{SSHA256}" + strings.Repeat("A", 43) + "=", "and a salt"},
		{"empty plain", "{PLAIN}", "empty"},
		{"long", "{PLAIN}" + strings.Repeat("a", 5000), "longer than"},
	} {
		t.Run(row.name, func(t *testing.T) {
			ok, err := Verify(row.hash, "secret")
			if ok || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("Verify(%q) = %v, %v; want an error with %q", row.hash, ok, err, row.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error quotes the password: %v", err)
			}
		})
	}
}

func TestLockedHashesMatchNothing(t *testing.T) {
	for _, hash := range []string{"{PLAIN}!pw", "{CRYPT}*", "{ARGON2ID}!$argon2id$x"} {
		if ok, err := Verify(hash, "pw"); ok || err != nil {
			t.Errorf("Verify(%q) = %v, %v", hash, ok, err)
		}
	}
}

func TestHashRoundTrip(t *testing.T) {
	for _, scheme := range []string{"", "ARGON2ID", "{BLF-CRYPT}", "sha512-crypt", "SHA256-CRYPT", "SSHA512", "SSHA256", "PLAIN"} {
		for _, pw := range []string{"pässwörd: \"\\", strings.Repeat("y", 72)} {
			h, err := Hash(scheme, pw)
			if err != nil {
				t.Fatalf("Hash(%q): %v", scheme, err)
			}
			if err := checkHash(h); err != nil {
				t.Errorf("Hash(%q) = %q does not fit into a file: %v", scheme, h, err)
			}
			if ok, err := Verify(h, pw); !ok || err != nil {
				t.Errorf("Verify(%q) = %v, %v", h, ok, err)
			}
			if ok, _ := Verify(h, pw+"x"); ok && len(pw) < 72 {
				t.Errorf("Verify(%q) accepts a longer password", h)
			}
		}
	}
	for _, row := range []struct{ name, scheme, pw string }{
		{"empty", "", ""},
		{"NUL", "", "a\x00b"},
		{"too long", "", strings.Repeat("a", MaxPassword+1)},
		{"too long for bcrypt", "BLF-CRYPT", strings.Repeat("a", 73)},
		{"unknown scheme", "MD5", "a"},
	} {
		if h, err := Hash(row.scheme, row.pw); err == nil {
			t.Errorf("%s: Hash = %q, want an error", row.name, h)
		}
	}
}

// Dovecot must accept what we write and we what it writes, today's version of it.
func TestDoveadm(t *testing.T) {
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed")
	}
	const pw = "correct horse battery"
	for _, scheme := range []string{"ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "SSHA512", "SSHA256", "PLAIN"} {
		t.Run(scheme, func(t *testing.T) {
			for _, suffix := range []string{"", ".b64", ".hex"} {
				out, err := exec.Command(doveadm, "pw", "-s", scheme+suffix, "-p", pw).Output()
				if err != nil {
					t.Fatalf("doveadm pw -s %s: %v", scheme+suffix, err)
				}
				if ok, err := Verify(strings.TrimSpace(string(out)), pw); !ok || err != nil {
					t.Errorf("Verify(%s) = %v, %v", out, ok, err)
				}
			}
			ours, err := Hash(scheme, pw)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(doveadm, "pw", "-t", ours, "-p", pw).CombinedOutput(); err != nil || !strings.Contains(string(out), "verified") {
				t.Errorf("doveadm pw -t %s: %v, %s", ours, err, out)
			}
		})
	}
}

func BenchmarkVerifyDefault(b *testing.B) {
	h, err := Hash("", "secret")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, _ := Verify(h, "secret"); !ok {
			b.Fatal("no match")
		}
	}
}
