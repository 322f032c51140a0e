# What users may send once they have logged in. The doors already demand TLS and
# a login.

policy "submission" {
  on = ["submission", "submissions"]

  # Nobody writes in another's name: the sender must end in the user's own
  # mailbox, by its name or by an alias.
  check "own-address" {
    plugin = "sender"
    at     = "mail"
    with   = { reject = ["login-mismatch"] }
  }

  # A stolen password is worth 200 recipients an hour, not a million. What comes
  # after them is taken and held for a look: "wafer queue list -held", then
  # "wafer queue release" or "drop". Each RCPT is one question, so each counts as
  # one.
  check "per-user" {
    plugin = "ratelimit"
    at     = "rcpt"
    allow  = ["count"]
    with   = { key = "user", limit = 200, per = "1h", action = "hold" }
  }
}
