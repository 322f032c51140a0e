package auth

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// quickKeys is a hash as Dovecot makes them, with few rounds.
func quickKeys(t testing.TB, password string) string {
	t.Helper()
	k, err := deriveSCRAM(prepared(password), []byte("sixteen octets.."), minSCRAMRounds)
	if err != nil {
		t.Fatal(err)
	}
	return k.String()
}

var testChannel = Channel{Exporter: bytes.Repeat([]byte{1}, 32), EndPoint: bytes.Repeat([]byte{2}, 32)}

// tlsPeer is a peer on a connection that can be bound to.
func tlsPeer(addr string) Peer {
	p := peer(addr)
	p.Channel = testChannel
	return p
}

func bindTo(kind string, data []byte) scram.ChannelBinding {
	return scram.ChannelBinding{Type: scram.ChannelBindingType(kind), Data: data}
}

// speak runs a conversation of a client that somebody else has written.
func speak(t *testing.T, s *Service, mechanism string, p Peer, c *scram.ClientConversation) (*Exchange, error) {
	t.Helper()
	e, err := s.Start(mechanism, p)
	if err != nil {
		t.Fatal(err)
	}
	challenge, done, err := e.Next(t.Context(), nil)
	if done || err != nil || len(challenge) > 0 {
		t.Fatalf("before the first message: %q, %v, %v", challenge, done, err)
	}
	for range 3 {
		var response string
		if !c.Done() {
			if response, err = c.Step(string(challenge)); err != nil {
				t.Fatalf("client: %v", err)
			}
		}
		if challenge, done, err = e.Next(t.Context(), []byte(response)); done || err != nil {
			return e, err
		}
	}
	t.Fatal("the exchange does not end")
	return nil, nil
}

func talker(t *testing.T, user, password, authzid string) *scram.Client {
	t.Helper()
	c, err := scram.SHA256.NewClient(user, password, authzid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSCRAM(t *testing.T) {
	exporter, endPoint := bindTo("tls-exporter", testChannel.Exporter), bindTo("tls-server-end-point", testChannel.EndPoint)
	none := scram.ChannelBinding{}
	onlyEndPoint := tlsPeer("192.0.2.1")
	onlyEndPoint.Channel.Exporter = nil
	for _, row := range []struct {
		name, mechanism, user, password, authzid string
		peer                                     Peer
		binding                                  scram.ChannelBinding
		want                                     error
	}{
		{"right", "SCRAM-SHA-256", "a@x", "pässword", "", peer("192.0.2.1"), none, nil},
		{"right, any case", "scram-sha-256", "A@X", "pässword", "", peer("192.0.2.1"), none, nil},
		{"right, typed differently", "SCRAM-SHA-256", "a@x", "pa\u0308ssword", "", peer("192.0.2.1"), none, nil},
		{"without binding though there is one", "SCRAM-SHA-256", "a@x", "pässword", "", tlsPeer("192.0.2.1"), none, nil},
		{"name with signs", "SCRAM-SHA-256", "a,=b@x", "pw", "", peer("192.0.2.1"), none, nil},
		{"as itself", "SCRAM-SHA-256", "a@x", "pässword", "A@x", peer("192.0.2.1"), none, nil},
		{"as another", "SCRAM-SHA-256", "a@x", "pässword", "b@x", peer("192.0.2.1"), none, ErrCredentials},
		{"exporter", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), exporter, nil},
		{"end point", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), endPoint, nil},
		{"end point alone", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", onlyEndPoint, endPoint, nil},
		{"exporter that is not there", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", onlyEndPoint, exporter, ErrCredentials},
		{"wrong exporter", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), bindTo("tls-exporter", testChannel.EndPoint), ErrCredentials},
		{"wrong end point", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), bindTo("tls-server-end-point", testChannel.Exporter), ErrCredentials},
		{"tls-unique", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), bindTo("tls-unique", testChannel.Exporter), ErrCredentials},
		{"plus without binding", "SCRAM-SHA-256-PLUS", "a@x", "pässword", "", tlsPeer("192.0.2.1"), none, ErrCredentials},
		{"binding without plus", "SCRAM-SHA-256", "a@x", "pässword", "", tlsPeer("192.0.2.1"), exporter, ErrCredentials},
		{"binding in the clear", "SCRAM-SHA-256", "a@x", "pässword", "", peer("192.0.2.1"), exporter, ErrCredentials},
		{"wrong password", "SCRAM-SHA-256", "a@x", "pw", "", peer("192.0.2.1"), none, ErrCredentials},
		{"unknown user", "SCRAM-SHA-256", "nobody@x", "pw", "", peer("192.0.2.1"), none, ErrCredentials},
		{"no keys", "SCRAM-SHA-256", "bcrypt@x", "pw", "", peer("192.0.2.1"), none, ErrCredentials},
		{"password in the clear", "SCRAM-SHA-256", "plain@x", "pässword", "", peer("192.0.2.1"), none, nil},
		{"wrong for one in the clear", "SCRAM-SHA-256", "plain@x", "pw", "", peer("192.0.2.1"), none, ErrCredentials},
		{"locked", "SCRAM-SHA-256", "locked@x", "pw", "", peer("192.0.2.1"), none, ErrCredentials},
		{"unusable hash", "SCRAM-SHA-256", "broken@x", "pw", "", peer("192.0.2.1"), none, ErrTemporary},
		{"long name", "SCRAM-SHA-256", strings.Repeat("n", 1900), "pw", "", peer("192.0.2.1"), none, ErrCredentials},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, _ := newTestService(t, map[string]string{
				"a@x": quickKeys(t, "pässword"), "A@X": quickKeys(t, "pässword"), "a,=b@x": quickKeys(t, "pw"),
				"bcrypt@x": dovecotHashes()["blf-crypt"], "plain@x": "{PLAIN}pässword", "locked@x": "!" + quickKeys(t, "pw"), "broken@x": "{MD5}x",
			})
			c := talker(t, row.user, row.password, row.authzid).NewConversation()
			if row.binding.IsSupported() {
				c = talker(t, row.user, row.password, row.authzid).NewConversationWithChannelBinding(row.binding)
			}
			e, err := speak(t, s, row.mechanism, row.peer, c)
			if !errors.Is(err, row.want) || (e.Identity().User != "") != (row.want == nil) {
				t.Errorf("%v for %q; want %v", err, e.Identity().User, row.want)
			}
			if row.want == nil && !c.Valid() {
				t.Error("the client does not believe the server")
			}
			if _, done, err := e.Next(t.Context(), nil); !done || !errors.Is(err, ErrMalformed) {
				t.Errorf("after the end: %v, %v", done, err)
			}
		})
	}
}

// TestSCRAMDowngrade: a client that could bind and was told that we cannot has
// somebody in between.
func TestSCRAMDowngrade(t *testing.T) {
	s, _ := newTestService(t, map[string]string{"a@x": quickKeys(t, "pw")})
	c := talker(t, "a@x", "pw", "")
	if _, err := speak(t, s, "SCRAM-SHA-256", tlsPeer("192.0.2.1"), c.NewConversationAdvertisingChannelBinding()); !errors.Is(err, ErrCredentials) {
		t.Errorf("downgrade: %v", err)
	}
	if _, err := speak(t, s, "SCRAM-SHA-256", peer("192.0.2.1"), c.NewConversationAdvertisingChannelBinding()); err != nil {
		t.Errorf("without our -PLUS: %v", err)
	}
	if _, err := s.Start("SCRAM-SHA-256-PLUS", peer("192.0.2.1")); !errors.Is(err, ErrMechanism) {
		t.Errorf("-PLUS in the clear: %v", err)
	}
}

func TestMechanisms(t *testing.T) {
	s := NewService(Config{Users: fakeUsers{}})
	if got := fmt.Sprint(s.Mechanisms(tlsPeer("::1"))); got != "[SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN]" {
		t.Error(got)
	}
	if got := fmt.Sprint(s.Mechanisms(peer("::1"))); got != "[SCRAM-SHA-256 PLAIN LOGIN]" {
		t.Error(got)
	}
	for _, row := range []struct{ name, users, want string }{
		{"nobody has keys", "a:" + dovecotHashes()["blf-crypt"] + "\nb:!" + quickKeys(t, "pw") + "\n", "[PLAIN LOGIN]"},
		{"somebody has", "a:" + dovecotHashes()["blf-crypt"] + "\nb:" + quickKeys(t, "pw") + "\n", "[SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN]"},
		{"in the clear", "a:{PLAIN}x\n", "[SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN]"},
		{"nobody at all", "", "[PLAIN LOGIN]"},
	} {
		s := NewService(Config{Users: NewDomains(map[string]*File{"x.test": openText(t, row.users)})})
		if got := fmt.Sprint(s.Mechanisms(tlsPeer("::1"))); got != row.want {
			t.Errorf("%s: %s", row.name, got)
		}
	}
	s = NewService(Config{Users: fakeUsers{}, Mechanisms: []string{"PLAIN"}})
	if got := fmt.Sprint(s.Mechanisms(tlsPeer("::1"))); got != "[PLAIN]" {
		t.Error(got)
	}
	if _, err := s.Start("LOGIN", peer("::1")); !errors.Is(err, ErrMechanism) {
		t.Errorf("a mechanism that is not offered: %v", err)
	}
}

func TestSCRAMMalformed(t *testing.T) {
	first := "n,,n=a@x,r=nonce"
	for _, row := range []struct {
		name      string
		responses []string
	}{
		{"empty", []string{""}},
		{"too few fields", []string{"n,,n=a@x"}},
		{"other flag", []string{"x,,n=a@x,r=nonce"}},
		{"extension", []string{"n,,m=1,n=a@x,r=nonce"}},
		{"no name", []string{"n,,n=,r=nonce"}},
		{"bad name", []string{"n,,n=a=x,r=nonce"}},
		{"bad authzid", []string{"n,a=a=x,n=a@x,r=nonce"}},
		{"empty nonce", []string{"n,,n=a@x,r="}},
		{"empty nonce, extension", []string{"n,,n=a@x,r=,x=1"}},
		{"too long", []string{"n,,n=a@x,r=" + strings.Repeat("n", maxSCRAM)}},
		{"final empty", []string{first, ""}},
		{"final without proof", []string{first, "c=biws,r=nonce"}},
		{"final no base64", []string{first, "c=!,r=nonce,p=AAAA"}},
		{"final too long", []string{first, strings.Repeat("c", maxSCRAM+1)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, _ := newTestService(t, map[string]string{"a@x": quickKeys(t, "secret")})
			e, err := s.Start("SCRAM-SHA-256", peer("192.0.2.1"))
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range row.responses {
				_, done, err := e.Next(t.Context(), []byte(r))
				if last := i == len(row.responses)-1; last != errors.Is(err, ErrMalformed) || last != done {
					t.Fatalf("response %d: %v, %v", i, done, err)
				}
				if err != nil && len(r) > 8 && strings.Contains(err.Error(), r) {
					t.Errorf("the error quotes the response: %v", err)
				}
			}
		})
	}
}

// serverFirst asks for name's salt and rounds.
func serverFirst(t *testing.T, s *Service, name string) string {
	t.Helper()
	e, err := s.Start("SCRAM-SHA-256", peer("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	challenge, _, err := e.Next(t.Context(), []byte("n,,n="+name+",r=nonce"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(challenge), ",")
	return rest
}

// TestSCRAMDecoy: what anybody is told about a name is always the same and
// looks the same, whether or not the user exists, under each of its spellings.
func TestSCRAMDecoy(t *testing.T) {
	keys, err := deriveSCRAM(prepared("pw"), bytes.Repeat([]byte("s"), 12), 5000)
	if err != nil {
		t.Fatal(err)
	}
	f := openText(t, "alice:"+keys.String()+"\nbob:"+dovecotHashes()["blf-crypt"]+"\ncarol:!\n")
	d := NewDomains(map[string]*File{"x.test": f})
	d.Default = "x.test"
	secret := []byte("kept over restarts")
	s := NewService(Config{Users: d, Secret: secret})
	other := NewService(Config{Users: d, Secret: []byte("another")})
	for _, name := range []string{"alice", "bob", "carol", "nobody", "nobody@elsewhere.test"} {
		first := serverFirst(t, s, name)
		if _, _, ok := cutLast(name); !ok {
			for _, same := range []string{strings.ToUpper(name), name + "@x.test", name + "@X.Test"} {
				if got := serverFirst(t, s, same); got != first {
					t.Errorf("%s: %s, but %s: %s", name, first, same, got)
				}
			}
		}
		if again := serverFirst(t, NewService(Config{Users: d, Secret: secret}), name); again != first {
			t.Errorf("%s: after a restart %s, before %s", name, again, first)
		}
		if got := serverFirst(t, other, name); (got == first) != (name == "alice") {
			t.Errorf("%s: with another secret %s, else %s", name, got, first)
		}
		if !strings.HasSuffix(first, ",i=5000") || len(first) != len("s=")+16+len(",i=5000") {
			t.Errorf("%s: %s", name, first)
		}
	}
	if serverFirst(t, s, "nobody") == serverFirst(t, s, "somebody") {
		t.Error("two names have the same salt")
	}
}

// TestSCRAMThrottle: proofs are counted like passwords.
func TestSCRAMThrottle(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"a@x": quickKeys(t, "pw"), "nologin@x": quickKeys(t, "pw")})
	try := func(user, password string) error {
		_, err := speak(t, s, "SCRAM-SHA-256", peer("192.0.2.1"), talker(t, user, password, "").NewConversation())
		return err
	}
	for i := range 4 {
		if err := try("a@x", "wrong"); !errors.Is(err, ErrCredentials) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	clock.takeWaits()
	if err := try("b@x", "pw"); !errors.Is(err, ErrCredentials) || clock.takeWaits() == 0 {
		t.Errorf("no wait after four failures: %v", err)
	}
	for range 100 {
		_ = try("nobody@x", "wrong")
	}
	if err := try("a@x", "pw"); !errors.Is(err, ErrThrottled) {
		t.Errorf("after a hundred failures: %v", err)
	}
	if _, err := s.Login(t.Context(), "a@x", "pw", peer("192.0.2.1")); !errors.Is(err, ErrThrottled) {
		t.Errorf("PLAIN after a hundred failures with SCRAM: %v", err)
	}
	if _, err := speak(t, s, "SCRAM-SHA-256", peer("203.0.113.9"), talker(t, "a@x", "pw", "").NewConversation()); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

// TestSCRAMHashServesPlain: one hash for all mechanisms, with Dovecot too.
func TestSCRAMHashServesPlain(t *testing.T) {
	for _, password := range []string{"correct horse", "pässwörd", "emoji \U0001F600"} {
		hash, err := Hash("", password)
		if err != nil || !strings.HasPrefix(hash, "{SCRAM-SHA-256}60000,") {
			t.Fatalf("Hash = %s, %v", hash, err)
		}
		if ok, err := Verify(hash, password); !ok || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
		if ok, err := Verify(hash, password+"!"); ok || err != nil {
			t.Errorf("wrong password for %q: %v, %v", password, ok, err)
		}
	}
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed")
	}
	out, err := exec.Command(doveadm, "pw", "-s", "SCRAM-SHA-256", "-p", "pässwörd").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.TrimSpace(string(out))
	if ok, err := Verify(theirs, "pässwörd"); !ok || err != nil {
		t.Errorf("Dovecot's %s: %v, %v", theirs, ok, err)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("a:"+theirs+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, Options{Domains: []string{"x.test"}})
	if err != nil {
		t.Fatal(err)
	}
	s := NewService(Config{Users: f})
	if _, err := speak(t, s, "SCRAM-SHA-256", peer("::1"), talker(t, "a@x.test", "pässwörd", "").NewConversation()); err != nil {
		t.Errorf("SCRAM with Dovecot's hash: %v", err)
	}
}

// TestManyGuesses: 5,000 failures from one network slow that network down, cost
// a bounded memory, and harm nobody else.
func TestManyGuesses(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"a@x": "{PLAIN}pw", "b@x": "{PLAIN}pw"})
	home := peer("198.51.100.9") // whose neighbours guess
	if _, err := s.Login(t.Context(), "b@x", "pw", home); err != nil {
		t.Fatal(err)
	}
	refused, checked := 0, 0
	for i := range 5000 {
		p := peer("192.0.2.1")
		p.Addr = netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 64)})
		switch _, err := s.Login(t.Context(), fmt.Sprint("guess", i, "@x"), fmt.Sprint("pw", i), p); {
		case errors.Is(err, ErrThrottled):
			refused++
		case errors.Is(err, ErrCredentials):
			checked++
		default:
			t.Fatal(err)
		}
	}
	if checked != 1000 || refused != 4000 {
		t.Errorf("%d passwords were looked at, %d attempts refused; want 1000 and 4000", checked, refused)
	}
	for i := range s.throttle.tables {
		if n := len(s.throttle.tables[i].entries); n > throttleSize || n > 2100 {
			t.Errorf("table %d has %d entries", i, n)
		}
	}
	clock.takeWaits()
	for _, row := range []struct{ name, user, addr string }{
		{"elsewhere", "a@x", "203.0.113.5"},
		{"the user known at this address", "b@x", "198.51.100.9"},
	} {
		if _, err := s.Login(t.Context(), row.user, "pw", peer(row.addr)); err != nil || clock.takeWaits() != 0 {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func FuzzSCRAM(f *testing.F) {
	f.Add(false, []byte("n,,n=a@x,r=nonce"), []byte("c=biws,r=nonce,p=AAAA"), []byte(""))
	f.Add(true, []byte("p=tls-exporter,,n=a@x,r=n"), []byte("c=,r=n,p="), []byte("x"))
	f.Add(true, []byte("y,a=b,n=a=2Cx,r=n,e=1"), []byte("c=eSws,r=n,x=y,p=AA=="), []byte(""))
	keys := quickKeys(f, "pw")
	f.Fuzz(func(t *testing.T, plus bool, first, second, third []byte) {
		clock := newClock()
		s := NewService(Config{
			Users:    fakeUsers{hashes: map[string]string{"a@x": keys}},
			Throttle: NewThrottle(ThrottleOptions{Wait: clock.wait}),
		})
		mechanism := "SCRAM-SHA-256"
		if plus {
			mechanism += "-PLUS"
		}
		e, err := s.Start(mechanism, tlsPeer("192.0.2.1"))
		if err != nil {
			t.Fatal(err)
		}
		done := false
		for _, r := range [][]byte{first, second, third} {
			var challenge []byte
			if challenge, done, err = e.Next(t.Context(), r); done || err != nil {
				break
			}
			if len(challenge) > 2*maxSCRAM {
				t.Fatalf("challenge of %d octets", len(challenge))
			}
		}
		if !done || err == nil || e.Identity().User != "" {
			t.Fatalf("nobody knows the password, but: %v, %v, %q", done, err, e.Identity().User)
		}
	})
}
