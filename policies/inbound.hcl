# What strangers have to pass before their mail is taken. Checks are asked in
# the order in which they stand here; the first that refuses decides.

policy "inbound" {
  on       = ["mx"]
  reply_at = "rcpt" # refuse at RCPT TO, so that the log can name the recipient

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
}
