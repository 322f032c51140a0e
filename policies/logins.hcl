# What fail2ban did: who guesses passwords is shut out, at every door where one
# can be tried, and one door's guesses count at all of them.

policy "logins" {
  on       = ["submission", "submissions", "imap", "imaps", "pop3", "pop3s"]
  reply_at = "connect" # there is no recipient to wait for

  exempt {
    networks = ["127.0.0.0/8", "::1/128"]
  }

  # Ten wrong passwords in an hour from one address: it is hung up on, with the
  # right password too, until some of them are an hour old. Who logs in is
  # forgiven the wrong ones before.
  check "guesses" {
    plugin = "ratelimit"
    at     = ["connect", "auth"]
    allow  = ["count", "state"]
    with = {
      key    = "client"
      cost   = "failures"
      limit  = 10
      per    = "1h"
      action = "disconnect"
      reset  = true
    }
  }

  # Those who have many addresses: a hundred wrong passwords in an hour from one
  # network, and the same for one user, wherever they come from. The user's own
  # program is asked to come back later, no more.
  check "network" {
    plugin = "ratelimit"
    at     = ["connect", "auth"]
    allow  = ["count"]
    with   = { key = "client-net", cost = "failures", limit = 100, per = "1h", action = "disconnect" }
  }

  check "user" {
    plugin = "ratelimit"
    at     = "auth"
    allow  = ["count"]
    with   = { key = "user+client-net", cost = "failures", limit = 20, per = "1h" }
  }
}
