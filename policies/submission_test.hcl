# Tests of submission.hcl: wafer policy test policies

given {
  policy = ["submission"]
  door   = "submission"
  client = "198.51.100.20"
  helo   = "[192.168.1.5]"
  tls    = "TLSv1.3"
  user   = "ann@example.test"
  sender = "ann@example.test"
  rcpt   = "bob@example.org"

  domains   = ["example.test"]
  mailboxes = ["ann@example.test", "bob@example.test", "sales@example.test"]
  owners    = { "sales@example.test" = ["ann@example.test", "bob@example.test"] }
}

test "names to write in" {
  each = {
    "one's own"            = { sender = "ann@example.test", code = 250 }
    "in other letters"     = { sender = "Ann@Example.Test", code = 250 }
    "an alias"             = { sender = "sales@example.test", code = 250 }
    "a colleague's"        = { sender = "bob@example.test", code = 553 }
    "nobody's"             = { sender = "ceo@example.test", code = 553 }
    "somebody's elsewhere" = { sender = "ann@example.org", code = 553 }
  }
  given { sender = each.sender }
  expect { code = each.code }
}

test "a refusal says whose it is" {
  given { sender = "bob@example.test" }
  expect {
    verdict  = "reject"
    code     = 553
    enhanced = "5.7.1"
    text     = "<bob@example.test>: Sender address rejected: not owned by user ann@example.test"
    reason   = "sender-login-mismatch"
    by       = "own-address"
    at       = "rcpt"
  }
}

test "without a login there is no mail" {
  given { user = "" }
  expect {
    verdict = "reject"
    code    = 530
    by      = "core"
    at      = "mail"
  }
}

test "a stolen password" {
  step "200 recipients in an hour" {
    times = 200
    expect { verdict = "accept" }
  }
  step "and one too many" {
    expect {
      verdict = "hold"
      code    = 250
      by      = "per-user"
      reason  = "rate-limit"
    }
  }
  step "others are not limited by it" {
    given {
      user   = "bob@example.test"
      sender = "bob@example.test"
    }
    expect { verdict = "accept" }
  }
  step "two hours later" {
    after = "2h"
    expect { verdict = "accept" }
  }
}
