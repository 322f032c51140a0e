hostname = "mail.example.org"
domain "example.org" {
  maildir = "mail/%n"
  users   = "files/users"
}
listener "mx" {
  profile = "mx"
  address = ":25"
}
policy "in bound" {
  on       = ["mxx"]
  reply_at = "data"
  exempt {
    network = []
  }
  check "a" {
    at       = ["helo", "helo", "hello"]
    allow    = ["dsn"]
    on_error = "ignore"
    mode     = "shadow"
    with     = ["x"]
    when     = hello == "x"
  }
  check "b" {
    plugin = "./none.wasm"
    with   = { a = null }
    when   = size
  }
}
policy "nobody" {
}
