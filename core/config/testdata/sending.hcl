hostname = "mail.example.org"
resolvers = ["127.0.0.1", "[::1]:53"]

domain "example.org" {
  maildir = "mail/%n"
  users   = "files/users"
  aliases = { far = ["ann@example.net", "bob"] }
}

listener "mx" {
  profile = "mx"
  address = ":25"
}

queue {
  lifetime       = "3d"
  delay_notice   = "0s"
  retry_min      = "1m"
  retry_max      = "1h"
  double_bounces = "ann@example.org"
}

relay {
  source  = ["192.0.2.1", "2001:db8::1"]
  tls     = "dane"
  mta_sts = false
}

srs {
  domain = "EXAMPLE.org"
  secret = "a secret of sixteen characters"
}

submission {
  own_sender  = "envelope"
  hide_client = true
}

transport "hub" {
  host        = "relay.example.net:587"
  username    = "wafer"
  password    = "secret"
  tls         = "verify"
  concurrency = 3
  recipients  = 10
  interval    = "100ms"
}

transport "box" {
  protocol = "lmtp"
  host     = "unix:/run/lmtp"
}

transport "later" {
  protocol = "hold"
}

route "*.example.net" {
  transport = "box"
}

route "example.com" {
  host = "[192.0.2.7]:2525"
}

route "*" {
  transport = "hub"
}

destination "*.example.edu" {
  tls         = "encrypt"
  tls_names   = ["mx.example.edu"]
  concurrency = 2
}
