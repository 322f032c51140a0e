# Tests of inbound.hcl: wafer policy test policies

given {
  policy    = ["inbound"]
  client    = "192.0.2.7"
  helo      = "mail.example.net"
  sender    = "ann@example.net"
  rcpt      = "bob@example.test"
  domains   = ["example.test"]
  mailboxes = ["bob@example.test", "carol@example.test"]

  dns = {
    "A mail.example.net"   = "192.0.2.7"
    "MX example.net"       = "10 mail.example.net"
    "TXT example.net"      = "v=spf1 mx -all"
    "TXT mail.example.net" = "v=spf1 a -all"
    "A example.org"        = "198.51.100.1"
  }
}

test "an honest mail passes and says why" {
  given {
    message = <<-EOT
      From: ann@example.net
      To: bob@example.test
      Subject: hello

      hello
    EOT
  }
  expect {
    verdict = "accept"
    header  = { "Received-SPF" = "~ ^Pass .*client-ip=192\\.0\\.2\\.7" }
    checks  = { rate = "next", helo = "next", sender = "next", spf-helo = "next", recipient = "skipped", spf = "next" }
  }
}

test "our own networks are left alone" {
  given {
    client = "127.0.0.1"
    helo   = "laptop"
    sender = "nobody@nowhere.invalid"
  }
  expect {
    verdict   = "accept"
    no_header = ["Received-SPF"]
    checks    = { rate = "skipped", helo = "skipped", sender = "skipped", recipient = "skipped", spf = "skipped", spf-helo = "skipped" }
  }
}

test "greetings" {
  each = {
    "no dot"             = { helo = "laptop", code = 504, reason = "helo-not-fqdn" }
    "an address"         = { helo = "192.0.2.7", code = 504, reason = "helo-not-fqdn" }
    "two dots"           = { helo = "a..example.net", code = 501, reason = "helo-invalid" }
    "a broken literal"   = { helo = "[192.0.2]", code = 501, reason = "helo-invalid" }
    "a hyphen in front"  = { helo = "-a.example.net", code = 501, reason = "helo-invalid" }
    "spaces in the name" = { helo = "my pc.example.net", code = 501, reason = "helo-invalid" }
  }
  given { helo = each.helo }
  expect {
    verdict  = "reject"
    code     = each.code
    enhanced = "5.5.2"
    text     = "~ ^<.*>: Helo command rejected: "
    reason   = each.reason
    by       = "helo"
    at       = "rcpt"
  }
}

test "an address literal is a greeting" {
  given { helo = "[192.0.2.7]" }
  expect { verdict = "accept" }
}

test "senders" {
  each = {
    "no dot"          = { sender = "ann@laptop", code = 504, enhanced = "5.5.2", reason = "sender-not-fqdn" }
    "unknown domain"  = { sender = "ann@nowhere.example", code = 450, enhanced = "4.1.8", reason = "unknown-domain" }
    "takes no mail"   = { sender = "ann@null.example", code = 550, enhanced = "5.7.27", reason = "null-mx" }
    "no DNS just now" = { sender = "ann@slow.example", code = 450, enhanced = "4.1.8", reason = "unknown-domain-tempfail" }
  }
  given {
    sender = each.sender
    dns = {
      "MX null.example" = "0 ."
      "* slow.example"  = "TIMEOUT"
    }
  }
  expect {
    code     = each.code
    enhanced = each.enhanced
    reason   = each.reason
    by       = "sender"
    at       = "rcpt"
  }
}

test "bounces have no sender" {
  given { sender = "" }
  expect {
    verdict = "accept"
    header  = { "Received-SPF" = "~ ^Pass .*identity=mailfrom" }
  }
}

test "recipients" {
  each = {
    "elsewhere"   = { rcpt = "dave@example.org", code = 554, enhanced = "5.7.1", reason = "recipient-unauth-destination" }
    "nobody here" = { rcpt = "nobody@example.test", code = 550, enhanced = "5.1.1", reason = "recipient-unlisted" }
    "no dot"      = { rcpt = "bob@intern", code = 504, enhanced = "5.5.2", reason = "recipient-not-fqdn" }
  }
  given {
    rcpt    = each.rcpt
    domains = ["example.test", "intern"]
  }
  expect {
    verdict  = "reject"
    code     = each.code
    enhanced = each.enhanced
    reason   = each.reason
    by       = "recipient"
    at       = "rcpt"
  }
}

test "one of two recipients is good" {
  given { rcpt = ["bob@example.test", "nobody@example.test"] }
  expect {
    verdict = "accept"
    rcpt    = { "bob@example.test" = 250, "nobody@example.test" = 550 }
  }
}

test "postmaster is always reachable" {
  given {
    rcpt = "postmaster"
    helo = "laptop"
  }
  expect { verdict = "accept" }
}

test "sender policies" {
  each = {
    "fails"         = { spf = ["v=spf1 -all"], code = 550, verdict = "reject", reason = "spf-fail" }
    "softfails"     = { spf = ["v=spf1 ~all"], code = 250, verdict = "accept", reason = "" }
    "is neutral"    = { spf = ["v=spf1 ?all"], code = 250, verdict = "accept", reason = "" }
    "is broken"     = { spf = ["v=spf1 a:", "v=spf1 -all"], code = 250, verdict = "accept", reason = "" }
    "does not come" = { spf = ["TIMEOUT"], code = 451, verdict = "defer", reason = "spf-temperror" }
  }
  given {
    helo   = "mail.example.org"
    sender = "eve@example.com"
    dns = {
      "MX example.com"  = "10 mail.example.org"
      "TXT example.com" = each.spf
    }
  }
  expect {
    verdict = each.verdict
    code    = each.code
    reason  = each.reason
  }
}

test "a client that comes too often" {
  step "thirty times are fine" {
    times = 30
    expect { verdict = "accept" }
  }
  step "once more is not" {
    expect {
      verdict = "disconnect"
      code    = 421
      by      = "rate"
      at      = "connect"
      counts  = { rate = { "192.0.2.7" = 31 } }
    }
  }
  step "another client does not notice" {
    given { client = "198.51.100.9" }
    expect { checks = { rate = "next" } }
  }
  step "a while later" {
    after = "2m"
    expect { verdict = "accept" }
  }
}
