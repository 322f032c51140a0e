# wafer's configuration. Check it with "wafer check config.hcl"; lay it out with
# "wafer fmt config.hcl". Paths are relative to this file's folder.

# The name in greetings, EHLO and Received. The PTR record of the server's
# address should give it.
hostname = "mail.example.org"

# Locks, the commit log, the control socket. Default: /var/lib/wafer
state = "/var/lib/wafer"

# The folder whose *.hcl files hold the policies.
policies = "policies"

# How mail is made durable: "auto" (syncfs where the kernel can, else fsync),
# "syncfs", "fsync".
sync = "auto"

# Clients that may relay without logging in, and that connection limits leave
# alone. Their bare line ends are repaired instead of refused.
trusted_networks = ["127.0.0.0/8", "::1/128"]

# Load balancers that begin each connection with a PROXY header, version 1 or 2,
# and hosts that may use XCLIENT. Empty means nobody.
proxy_networks   = []
xclient_networks = []

# Name servers. Default: those of /etc/resolv.conf. DNSBLs want a resolver of
# your own, such as unbound on this host.
# resolvers = ["127.0.0.1"]

# Where Prometheus may ask for /metrics. Default: nowhere.
# metrics = "127.0.0.1:9464"

tls {
  cert        = "/etc/letsencrypt/live/mail.example.org/fullchain.pem"
  key         = "/etc/letsencrypt/live/mail.example.org/privkey.pem"
  min_version = "1.2"

  # More names that clients ask for (SNI), each with its own certificate:
  #
  # certificate "mail.example.com" {
  #   cert = "/etc/letsencrypt/live/mail.example.com/fullchain.pem"
  #   key  = "/etc/letsencrypt/live/mail.example.com/privkey.pem"
  # }
}

# One block for each domain that mail is delivered for.
domain "example.org" {
  # %d is the domain, %n the user, %u both.
  maildir = "/var/mail/vhosts/%d/%n"

  # Users in Dovecot's passwd-file syntax; "wafer user add ann@example.org".
  users = "/etc/wafer/users"

  # ann+lists@example.org is ann's.
  separator = "+"

  aliases = {
    postmaster = ["ann"]
    abuse      = ["ann"]
    sales      = ["ann", "bob"]
  }

  # Everything else would go to:
  # catch_all = "ann"
}

# Mail for other hosts. These are the defaults.
queue {
  lifetime        = "5d"    # then it is returned
  bounce_lifetime = "5d"    # of mail without a sender
  delay_notice    = "4h"    # then its sender hears that it takes long
  retry_min       = "300s"  # the time between attempts doubles from here
  retry_max       = "4000s" # to here
  deliveries      = 500     # at once
  double_bounces  = "postmaster"
  bounce_excerpt  = 50000 # octets; a longer message is returned as its header
}

relay {
  tls     = "may" # or "encrypt", "verify", "dane", "dane-only"
  mta_sts = true
}

submission {
  own_sender  = "both" # users write in their own name, envelope and header
  hide_client = false
}

# A smarthost for everything that is not ours:
#
# transport "hub" {
#   host     = "[smtp.example.net]:587"
#   username = "mail.example.org"
#   password = file("/etc/wafer/hub.password")
#   tls      = "verify"
# }
#
# route "*" {
#   transport = "hub"
# }

listener "mx" {
  profile = "mx"
  address = ":25"
}

listener "submission" {
  profile = "submission" # STARTTLS and a login are required
  address = ":587"
}

listener "submissions" {
  profile = "submissions" # TLS from the first octet
  address = ":465"
}

listener "imap" {
  profile = "imap"
  address = ":143"
}

listener "imaps" {
  profile = "imaps"
  address = ":993"
}

listener "pop3" {
  profile = "pop3"
  address = ":110"
}

listener "pop3s" {
  profile = "pop3s"
  address = ":995"
}

# Mail from programs on this machine:
#
# listener "lmtp" {
#   profile = "lmtp"
#   address = "unix:/run/wafer/lmtp"
# }

# A Postfix that asks these policies by check_policy_service:
#
# listener "policy" {
#   profile = "policy"
#   address = "unix:/run/wafer/policy"
# }

# These are the defaults.
limits {
  message_size           = "50MiB" # 52428800 octets
  recipients             = 1000    # of one message
  connections_per_client = 10      # SMTP, at once
  connection_rate        = 30      # SMTP, begun in connection_rate_per
  connection_rate_per    = "60s"
  connections_per_user   = 50    # IMAP, at once
  connections            = 10000 # of all clients at once, for each protocol
  errors_soft            = 10    # refused commands, then replies slow down
  errors_hard            = 20    # refused commands, then the session ends
  idle                   = "5m"  # SMTP: for one command
  data                   = "1h"  # SMTP: for one message
  min_rate               = 500   # octets per second of a message
  session                = "2h"  # SMTP: for a session
  greet_delay            = "0s"  # mx: wait for clients that talk first
  shutdown               = "30s" # how long a stop waits for messages under way
  reload_grace           = "15m" # how long sessions of an earlier generation may go on
}

log {
  format         = "text" # or "json"
  level          = "info" # "debug" shows the dialogue
  decisions      = true   # STATE/decisions: what each check said, for wafer policy log and explain
  decisions_mask = "none" # of addresses in it: "hash" or "drop"
  decisions_keep = "30d"  # how long
  decisions_size = "1GiB" # and how much of it
}

# What checks were asked and told, for wafer policy replay. Without the block nothing is kept.
tape {
  size   = "1GiB"    # of all files
  keep   = "48h"     # how long
  bodies = "digests" # of what checks read of bodies; "contents" keeps it
  mask   = "none"    # of addresses: "hash" or "drop"
}

# The account that owns the mail. The server starts as root, opens its ports
# and becomes this for good.
run_as {
  user  = "vmail"
  group = "vmail"
}
