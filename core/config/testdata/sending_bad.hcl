hostname = "mail.example.org"

domain "example.org" {
  maildir = "mail/%n"
  users   = "files/users"
}

listener "mx" {
  profile = "mx"
  address = ":25"
}

queue {
  retry_min      = "2h"
  retry_max      = "1h"
  double_bounces = "a b@c"
}

relay {
  source = ["nonsense", "192.0.2.1", "192.0.2.2"]
  tls    = "always"
}

srs {
  domain = "example.com"
  secret = "short"
}

submission {
  own_sender = "yes"
}

transport "smtp" {
}

transport "open" {
  host     = "relay.example.net"
  username = "wafer"
  password = "secret"
  tls      = "may"
}

transport "half" {
  host     = "relay.example.net:0"
  username = "wafer"
}

transport "box" {
  protocol = "lmtp"
}

transport "sock" {
  host = "unix:/run/lmtp"
}

transport "slow" {
  concurrency       = 2
  concurrency_start = 5
}

route "*.*" {
  transport = "hbu"
}

route "example.net" {
  host = "[nonsense"
}

destination "*" {
  tls = "dane-only"
}
