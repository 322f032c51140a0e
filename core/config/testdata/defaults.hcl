hostname = "mail.example.org"

domain "example.org" {
  maildir = "mail/%n"
  users   = "files/users"
}

listener "mx" {
  profile = "mx"
  address = ":25"
}
