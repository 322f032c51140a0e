package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/rehearse"
)

// mailFlags describe a mail that has not come.
type mailFlags struct {
	Door       string   `placeholder:"PROFILE" default:"mx" help:"Door: mx, submission, imap, … (${default})."`
	Client     string   `placeholder:"ADDRESS" help:"The client's IP address."`
	ClientName string   `placeholder:"NAME" help:"The client's verified name, if DNS is not to be asked."`
	Helo       string   `placeholder:"NAME" help:"What it greets with."`
	TLS        bool     `name:"tls" help:"It uses TLS."`
	User       string   `placeholder:"LOGIN" help:"It logs in."`
	AuthFails  bool     `help:"The login fails."`
	From       string   `placeholder:"ADDRESS" help:"MAIL FROM; \"<>\" for the null sender."`
	To         []string `placeholder:"ADDRESS" help:"RCPT TO; may be given several times."`
	Size       int64    `placeholder:"OCTETS" help:"SIZE that it declares."`
	Message    string   `placeholder:"FILE" help:"The message."`
	Zone       string   `placeholder:"FILE" help:"Answer DNS from this zone file instead of asking."`
}

// scenario is what the flags say.
func (c *mailFlags) scenario(cfg *config.Config) (*rehearse.Scenario, error) {
	addr, err := netip.ParseAddr(c.Client)
	if err != nil {
		return nil, fmt.Errorf("-client %q is not an IP address", c.Client)
	}
	sc := &rehearse.Scenario{
		Door: c.Door, Hostname: cfg.Hostname, Now: time.Now, Client: netip.AddrPortFrom(addr, 40000),
		Helo: c.Helo, Extended: true, User: c.User, Mechanism: "PLAIN", AuthOK: !c.AuthFails, Size: c.Size,
	}
	if !isProfile(c.Door) {
		return nil, fmt.Errorf("-door %q: write one of %s", c.Door, strings.Join(config.Profiles(), ", "))
	}
	if c.ClientName != "" {
		sc.ClientName = &c.ClientName
	}
	if c.TLS {
		sc.TLS = "TLSv1.3"
	}
	for _, n := range cfg.Trusted {
		sc.Trusted = sc.Trusted || n.Contains(addr.Unmap())
	}
	if c.From == "" && len(c.To) > 0 {
		return nil, errors.New(`-to needs -from as well; write -from "<>" for the null sender`)
	}
	sc.NoMail = c.From == ""
	if from := strings.Trim(c.From, "<>"); from != "" {
		if sc.Sender, err = mail.ParsePath(from, true); err != nil {
			return nil, fmt.Errorf("-from %q: %w", c.From, err)
		}
	}
	for _, to := range c.To {
		p, err := mail.ParsePath(strings.Trim(to, "<>"), true)
		if err != nil {
			return nil, fmt.Errorf("-to %q: %w", to, err)
		}
		sc.Rcpts = append(sc.Rcpts, p)
	}
	if c.Message != "" {
		b, err := os.ReadFile(c.Message)
		if err != nil {
			return nil, err
		}
		sc.Message = []byte(strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n", "\r\n"))
	}
	if c.Zone != "" {
		sc.Resolver, err = dns.LoadZone(c.Zone)
	} else {
		sc.Resolver, err = dns.NewLive(dns.LiveOptions{Servers: cfg.Resolvers, TrustAD: cfg.DNSSEC})
	}
	return sc, err
}

func isProfile(s string) bool {
	for _, p := range config.Profiles() {
		if p == s {
			return true
		}
	}
	return false
}
