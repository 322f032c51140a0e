hostname         = "mail.example.org"
state            = "state"
sync             = "fsync"
trusted_networks = ["127.0.0.0/8", "::1"]
proxy_networks   = ["192.0.2.0/24"]
xclient_networks = ["192.0.2.1"]

tls {
  cert        = "files/cert.pem"
  key         = "files/key.pem"
  min_version = "1.3"
  certificate "*.example.com" {
    cert = "files/cert.pem"
    key  = "files/key.pem"
  }
}

domain "example.org" {
  maildir   = "/var/mail/vhosts/%d/%n"
  users     = "files/users"
  separator = "+"
  catch_all = "ann"
  aliases = {
    postmaster = ["ann"]
    Sales      = ["ann", "bob@bücher.example"]
  }
}

domain "bücher.example" {
  maildir = "mail/%u"
  users   = "files/users"
}

listener "mx" {
  profile   = "mx"
  addresses = ["127.0.0.1:25", "[::1]:25"]
}

listener "submission" {
  profile                          = "submission"
  address                          = ":587"
  allow_plaintext_auth_on_loopback = true
}

listener "lmtp" {
  profile = "lmtp"
  address = "unix:/run/wafer/lmtp"
  tls     = "none"
}

limits {
  message_size           = "50MiB"
  recipients             = 100
  connections_per_client = 5
  connection_rate        = 7
  connection_rate_per    = "90s"
  connections            = 500
  errors_soft            = 3
  errors_hard            = 4
  idle                   = "1m"
  data                   = "10m"
  min_rate               = "1KiB"
  session                = "1h"
  greet_delay            = "2s"
  connections_per_user   = 9
  shutdown               = "5s"
}

log {
  format    = "json"
  level     = "warn"
  decisions = true
}

run_as {
  user  = "vmail"
  group = "mail"
}

policy "inbound" {
  on       = ["mx", "lmtp"]
  reply_at = "helo"
  exempt {
    networks      = ["10.0.0.0/8"]
    authenticated = true
  }
  check "rate" {
    plugin   = "ratelimit"
    at       = ["connect", "mail"]
    reply_at = "connect"
    allow    = ["count"]
    on_error = "accept"
    mode     = "observe"
    with     = { key = "client", limit = 30, per = "60s", deep = { list = ["a", 2, true], flag = false }, seconds = duration("2m") }
    when     = !tls && size > 10 && endswith(helo, ".org")
  }
  check "own" {
    plugin = "files/x.wasm"
    at     = "rcpt"
  }
}
