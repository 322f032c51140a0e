# Each kind of fault, once.

given {
  hello = "x"
  door  = "smtp"
}

given {
}

policy "p" {
}

test {
  expect { code = 250 }
}

test "twice" {
  expect { code = 250 }
}

test "twice" {
  expect { code = 250 }
}

test "expects nothing at all" {
}

test "expects nothing" {
  expect {
  }
}

test "given" {
  given {
    policy       = [1]
    hostname     = 5
    clock        = "yesterday"
    client       = "localhost"
    port         = 70000
    client_name  = true
    trusted      = "yes"
    tls          = "SSLv3"
    helo         = nothing
    extended     = 1
    sender       = "ann smith@example.net"
    rcpt         = ["bob@example.test", "a b"]
    size         = "big"
    message_file = "files/none.eml"
    zone         = "files"
    dns          = { "SRV x" = "y", "MX" = "y", "A " = "z" }
    domains      = { a = 1 }
    owners       = ["ann"]
    state        = { greylist = "x" }
    colour       = "red"
  }
  expect { code = 250 }
}

test "tables" {
  given {
    dns    = { "A x" = 5 }
    owners = { "a@b.example" = [1] }
    state  = { greylist = { k = ["v"] } }
  }
  expect {
    state  = { greylist = 1 }
    header = { "X-A" = ["~ (", "b"] }
  }
}

test "two of a key" {
  given {
    dns = { "A x" = "192.0.2.1", "A x" = "192.0.2.2" }
  }
  expect { code = 250 }
}

test "expect" {
  expect {
    verdict   = "refuse"
    code      = 99
    enhanced  = 5
    text      = "~ ["
    by        = ["a"]
    at        = "quit"
    no_header = 1
    tags      = [true]
    score     = "much"
    rcpt      = { "bob@example.test" = "250" }
    checks    = { spf = "nxt", rate = ["next", "defer"] }
    state     = "x"
    counts    = { rate = 3, other = { "k" = 1.5 } }
    asked     = {}
    codes     = 250
  }
}

test "expect in a list" {
  expect {
    counts = [1]
    rcpt   = ["a"]
  }
}

test "each is no map" {
  each = ["a", "b"]
  expect { code = 250 }
}

test "a row is no map" {
  each = { a = "b" }
  expect { code = 250 }
}

test "no rows" {
  each = {}
  expect { code = 250 }
}

test "a row without the name" {
  each = { a = { helo = "x" } }
  given { helo = each.hello }
  expect { code = 250 }
}

test "steps" {
  expect { code = 250 }
  step "first" {
    same_session = true
    after        = "-1h"
    times        = 0
    expect { code = 250 }
  }
  step "first" {
    expect { code = 250 }
  }
  step "no expectation" {
  }
  step "unknown" {
    befor = "1h"
    expect { code = 250 }
    step "inner" {
    }
  }
}

test "two of a block" {
  given {
  }
  given {
  }
  expect { code = 250 }
  expect { code = 251 }
}

test "not a block" {
  expect = { code = 250 }
  each {
  }
}

test "another client in the same session" {
  step "one" {
    expect { code = 250 }
  }
  step "two" {
    same_session = true
    given { client = "192.0.2.2" }
    expect { code = 250 }
  }
}
