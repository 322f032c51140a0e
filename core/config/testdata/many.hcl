hostnam  = "x"
hostname = "mail"
state    = 7
sync     = "often"
trusted_networks = ["10.0.0.1/8", "everybody"]
proxy_networks = true

tls {
  cert = "files/none.pem"
  key  = ""
  min_version = "1.0"
  ciphers = "all"
}

domain "example.org" {
  maildir = "/var/mail/all"
  users   = "files/users"
  separator = "++"
  aliases = {
    sales   = "ann"
    "a b"   = ["ann"]
    forward = ["x@elsewhere.example"]
  }
}
domain "EXAMPLE.org" {
  maildir = "mail/%x/%n"
}
domain "example.org" {
}
domain "a_b@c" {
  maildir = "mail/%n"
  users   = "files"
}

listener "mx" {
  profile = "smtp"
  address = "25"
}
listener "a" {
  profile = "imaps"
  address = "127.0.0.1:993"
  tls     = "none"
}
listener "b" {
  profile = "imap"
  address = "127.0.0.1:993"
  port = 993
}
listener "c" {
  profile = "mx"
  address = "unix:/run/x"
}
listener {
}

limits {
  message_size = "much"
  recipients = 0
  connection_rate_per = 60
  errors_soft = 10
  errors_hard = 5
}
limits {
}
run_as {
  group = "mail"
}
log = { format = "xml" }
lisener "x" {
}
