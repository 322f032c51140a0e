# Every key of a test file.

given {
  policy    = ["inbound"]
  client    = "192.0.2.7"
  helo      = "mail.example.net"
  domains   = ["example.test"]
  mailboxes = "bob@example.test"
  dns       = { "A mail.example.net" = "192.0.2.7" }
  owners    = { "info@example.test" = "ann" }
  state     = { greylist = { "a" = "file", "b" = "file" } }
}

test "nothing but what the file gives" {
  expect { verdict = "accept" }
}

test "everything that can be given" {
  given {
    policy       = "submission"
    door         = "submissions"
    hostname     = "mx.example.test"
    clock        = "2026-02-03T04:05:06+01:00"
    client       = "2001:db8::1"
    port         = 12345
    client_name  = ""
    reverse_name = "host.example.net"
    trusted      = true
    early_talker = true
    tls          = "TLSv1.2"
    helo         = ""
    extended     = false
    user         = "ann"
    mechanism    = "SCRAM-SHA-256"
    auth_ok      = false
    sender       = ""
    rcpt         = ["<bob@example.test>", "postmaster", "\"a b\"@example.test"]
    size         = "2KiB"
    message      = "Subject: x\n\nline\r\n"
    dns = {
      "MX example.net"    = ["10 a.example.net", "20 b.example.net"]
      "TXT example.net"   = "TIMEOUT"
      "* broken.example"  = "SERVFAIL"
      "AAAA example.net"  = []
      "PTR 2001:db8::1"   = "host.example.net"
      "CNAME www.example" = "NXDOMAIN"
      "NS example.net"    = "ns.example.net"
    }
    zone      = "files/zone.zone"
    domains   = ["a.example", "b.example"]
    mailboxes = []
    owners    = { "ann@a.example" = ["ann", "root"] }
    state     = { greylist = { "b" = "test", "n" = 7 }, rate = { "x" = true } }
  }
  expect {
    verdict   = "quarantine"
    code      = 250
    enhanced  = "2.0.0"
    text      = "~ ^OK"
    reason    = "odd"
    by        = "inbound/spf"
    at        = "message"
    header    = { "Received-SPF" = "~ ^Pass", "X-Plain" = "as it is" }
    no_header = ["X-Spam", "Bcc"]
    tags      = "junk"
    score     = 2.5
    redirect  = ["a@example.test"]
    bcc       = "b@example.test"
    rcpt      = { "bob@example.test" = 250, "nobody@example.test" = 550 }
    checks    = { spf = "next", rate = "not asked", helo = "skipped", sender = "error", dns = "defer_if_permit" }
    state     = { greylist = { "b" = "~ ^t", "gone" = "" } }
    counts    = { rate = { "192.0.2.7" = 3 } }
    asked     = ["TXT example.net", "MX example.net"]
  }
}

test "rows" {
  each = {
    "no dot"   = { helo = "laptop", code = 504 }
    "two dots" = { helo = "a..b", code = 501 }
  }
  given {
    helo    = lower(each.helo)
    tls     = each.code == 504
    message = "Subject: ${each.helo}\n"
  }
  expect { code = each.code }
}

test "steps" {
  given {
    sender = "ann@example.net"
    dns    = { "A mail.example.net" = "192.0.2.8" }
    tls    = true
  }
  step "one" {
    times = 3
    given { tls = false }
    expect { verdict = "accept" }
  }
  step "another in the same session" {
    same_session = true
    given {
      sender       = "carl@example.net"
      message_file = "files/mail.eml"
      state        = { greylist = { "c" = "step" } }
    }
    expect { text = "" }
  }
  step "a day later" {
    after = "26h"
    expect { score = -1 }
  }
}

test "rows of steps" {
  each = { "first" = { n = 1 }, "second" = { n = 2 } }
  step "only" {
    times = each.n
    expect { code = 250 + each.n }
  }
}
