# What strangers have to pass before their mail is taken: what a careful
# main.cf has in its smtpd_*_restrictions, with policyd-spf behind them. Checks
# are asked in the order in which they stand here; the first that refuses decides.

policy "inbound" {
  on       = ["mx"]
  reply_at = "rcpt" # refuse at RCPT TO, so that the log can name the recipient

  # permit_mynetworks, permit_sasl_authenticated
  exempt {
    networks      = ["127.0.0.0/8", "::1/128"]
    authenticated = true
  }

  # At most 30 connections a minute from one client. This is refused at once:
  # who comes too often is not to be served first.
  check "rate" {
    plugin   = "ratelimit"
    at       = "connect"
    reply_at = "connect"
    allow    = ["count"]
    with     = { key = "client", limit = 30, per = "60s" }
  }

  # The name that a client gives must be well-formed and complete.
  check "helo" {
    at   = "helo"
    with = { reject = ["invalid", "not-fqdn"] }
  }

  # The sender's domain must be complete, be there, and take mail.
  check "sender" {
    at    = "mail"
    allow = ["dns"]
    with  = { reject = ["not-fqdn", "unknown-domain"] }
  }

  # The recipient must be one of ours. The server has the last word on that in
  # any case; here it is said before DNS is asked for anything.
  check "recipient" {
    at   = "rcpt"
    when = recipient_class != "local"
    with = { reject = ["unauth-destination", "not-fqdn", "unlisted"] }
  }

  # May this client send mail for the domain that it names, and be who it says
  # it is? What fails is refused, what its owner is unsure of is told in
  # Received-SPF. 20 s of each timeout are for DNS, as RFC 7208 §4.6.4 wants.
  check "spf-helo" {
    plugin  = "spf"
    at      = "helo"
    allow   = ["dns"]
    timeout = "25s"
    with    = { identities = ["helo"], fail = "reject", permerror = "next", temperror = "defer" }
  }

  check "spf" {
    at      = "rcpt"
    allow   = ["dns"]
    timeout = "25s"
    with    = { identities = ["mail"], fail = "reject", softfail = "next", permerror = "next", temperror = "defer" }
  }
}
