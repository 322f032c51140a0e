# Tests of logins.hcl: wafer policy test policies

given {
  policy  = ["logins"]
  door    = "imaps"
  client  = "203.0.113.77"
  tls     = true
  user    = "ann@example.test"
  auth_ok = false
}

test "a typing mistake or two" {
  step "wrong" {
    times = 3
    expect {
      verdict = "reject"
      code    = 535
      by      = "core"
    }
  }
  step "right" {
    given { auth_ok = true }
    expect { verdict = "accept" }
  }
}

test "a guesser" {
  step "ten guesses" {
    times = 10
    expect {
      code = 535
      by   = "core"
    }
  }
  step "is shut out at the door" {
    expect {
      verdict = "disconnect"
      code    = 421
      by      = "guesses"
      at      = "connect"
    }
  }
  step "at every door" {
    given { door = "submission" }
    expect {
      verdict = "disconnect"
      by      = "guesses"
      at      = "connect"
    }
  }
  step "with the right password, too" {
    given {
      door    = "pop3s"
      auth_ok = true
    }
    expect {
      verdict = "disconnect"
      by      = "guesses"
    }
  }
  step "others are not" {
    given {
      client  = "198.51.100.5"
      auth_ok = true
    }
    expect { verdict = "accept" }
  }
  step "two hours later it may try again" {
    after = "2h"
    given { auth_ok = true }
    expect { verdict = "accept" }
  }
}

test "one user from two addresses of a network" {
  step "ten guesses" {
    times = 10
    given { client = "2001:db8::1" }
    expect { by = "core" }
  }
  step "ten more" {
    times = 10
    given { client = "2001:db8::2" }
    expect { by = "core" }
  }
  step "and one from a third" {
    given { client = "2001:db8::3" }
    expect {
      verdict = "defer"
      code    = 450
      by      = "user"
      at      = "auth"
    }
  }
}

test "a whole network of guessers" {
  step "host 1" {
    times = 10
    given {
      client = "203.0.113.1"
      user   = "user1@example.test"
    }
    expect { by = "core" }
  }
  step "host 2" {
    times = 10
    given {
      client = "203.0.113.2"
      user   = "user2@example.test"
    }
    expect { by = "core" }
  }
  step "host 3" {
    times = 10
    given {
      client = "203.0.113.3"
      user   = "user3@example.test"
    }
    expect { by = "core" }
  }
  step "host 4" {
    times = 10
    given {
      client = "203.0.113.4"
      user   = "user4@example.test"
    }
    expect { by = "core" }
  }
  step "host 5" {
    times = 10
    given {
      client = "203.0.113.5"
      user   = "user5@example.test"
    }
    expect { by = "core" }
  }
  step "host 6" {
    times = 10
    given {
      client = "203.0.113.6"
      user   = "user6@example.test"
    }
    expect { by = "core" }
  }
  step "host 7" {
    times = 10
    given {
      client = "203.0.113.7"
      user   = "user7@example.test"
    }
    expect { by = "core" }
  }
  step "host 8" {
    times = 10
    given {
      client = "203.0.113.8"
      user   = "user8@example.test"
    }
    expect { by = "core" }
  }
  step "host 9" {
    times = 10
    given {
      client = "203.0.113.9"
      user   = "user9@example.test"
    }
    expect { by = "core" }
  }
  step "host 10" {
    times = 10
    given {
      client = "203.0.113.10"
      user   = "user10@example.test"
    }
    expect { by = "core" }
  }
  step "is shut out" {
    given { client = "203.0.113.200" }
    expect {
      verdict = "disconnect"
      by      = "network"
      at      = "connect"
    }
  }
}

test "who logs in is forgiven" {
  step "nine wrong" {
    times = 9
    expect { by = "core" }
  }
  step "one right" {
    given { auth_ok = true }
    expect { verdict = "accept" }
  }
  step "nine wrong again" {
    times = 9
    expect { by = "core" }
  }
}

test "this host is left alone" {
  given { client = "127.0.0.1" }
  step "many wrong" {
    times = 30
    expect {
      by     = "core"
      checks = { guesses = "skipped" }
    }
  }
}
