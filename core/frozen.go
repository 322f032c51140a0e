package core

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/config"
)

// frozen says which settings differ that only a restart can change, with both values.
func frozen(old, now *config.Config) error {
	was, is := frozenSettings(old), frozenSettings(now)
	var faults []error
	for i := range was {
		if i < len(is) && was[i].value != is[i].value {
			faults = append(faults, fmt.Errorf("%s cannot change while the server runs: it is %s, and would be %s; restart for that, or write what it was", was[i].key, was[i].value, is[i].value))
		}
	}
	return errors.Join(faults...)
}

// frozenSetting is a key that is read once, and what it says.
type frozenSetting struct{ key, value string }

// frozenSettings are those of c, the same keys for every configuration.
func frozenSettings(c *config.Config) (all []frozenSetting) {
	add := func(key string, value any) {
		text := fmt.Sprint(value)
		if text == "" {
			text = "nothing"
		}
		all = append(all, frozenSetting{key, text})
	}
	add("hostname", c.Hostname)
	add("state", c.State)
	add("sync", c.Sync)
	add("run_as", strings.TrimSpace(c.RunAs.User+" "+c.RunAs.Group))
	add("resolvers", c.Resolvers)
	add("dnssec", c.DNSSEC)
	add("metrics", c.Metrics)
	l := &c.Log
	add("log { format }", l.Format)
	add("log { level }", l.Level)
	add("log { decisions }", l.Decisions)
	add("log { decisions_mask }", l.DecisionsMask)
	add("log { decisions_keep }", l.DecisionsKeep)
	add("log { decisions_size }", l.DecisionsSize)
	add("tape", tapeText(c.Tape))
	q := &c.Sending.Queue
	add("queue { lifetime }", q.Lifetime)
	add("queue { bounce_lifetime }", q.BounceLifetime)
	add("queue { delay_notice }", q.DelayNotice)
	add("queue { retry_min }", q.RetryMin)
	add("queue { retry_max }", q.RetryMax)
	add("queue { deliveries }", q.Deliveries)
	add("queue { double_bounces }", q.DoubleBounces)
	add("queue { bounce_excerpt }", q.BounceExcerpt)
	r := &c.Sending.Relay
	add("relay { source }", r.Source)
	add("relay { mta_sts }", r.MTASTS)
	add("relay { ca }", r.CAFile)
	add("relay { port }", r.Port)
	add("relay { connect_timeout }", r.Timeout.Connect)
	add("relay { command_timeout }", r.Timeout.Command)
	add("relay { data_timeout }", r.Timeout.Data)
	add("relay { deliveries }", r.Limits.Deliveries)
	add("srs", srsText(&c.Sending.SRS))
	add("transport", transportsText(c.Sending.Transports))
	return all
}

func tapeText(t *config.Tape) string {
	if t == nil {
		return "none"
	}
	return fmt.Sprintf("size %d keep %s bodies %t mask %s", t.Size, t.Keep, t.Bodies, t.Mask) + secretText(t.Key)
}

func srsText(s *config.SRS) string {
	if !s.On {
		return "off"
	}
	return "on for " + s.Domain + secretText(s.Secret)
}

func transportsText(all []config.Transport) string {
	var texts []string
	for _, t := range all {
		text := fmt.Sprintf("%q (%s %s", t.Name, t.Protocol, t.Host)
		if t.Username != "" {
			text += " as " + t.Username + secretText(t.Password)
		}
		if t.TLS != "" {
			text += " tls " + t.TLS
		}
		if t.Implicit {
			text += " implicit"
		}
		if len(t.Source) > 0 {
			text += fmt.Sprint(" from ", t.Source)
		}
		if t.Limits.Deliveries > 0 {
			text += fmt.Sprint(" deliveries ", t.Limits.Deliveries)
		}
		texts = append(texts, text+")")
	}
	return strings.Join(texts, ", ")
}

// secretText tells secrets apart without telling them.
func secretText(secret string) string {
	if secret == "" {
		return ""
	}
	return fmt.Sprintf(" with a secret of the digest %.4x", sha256.Sum256([]byte("wafer reload\x00"+secret)))
}
