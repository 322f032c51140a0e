// Package takeover holds tests only: they put wafer beside Debian's Dovecot on
// the same Maildirs and compare what clients see.
//
// A house has one directory with a mailbox for each user. Dovecot's imap and pop3
// run in it over pipes, as an unprivileged user and already logged in; wafer's
// servers run in the test's own process and give what they make to that user. The
// tests need root's rights for that and say so where they are skipped.
//
//	go test ./core/takeover/
//	WAFER_MESSAGES=20000 go test ./core/takeover/ -run TestTakeover
//	WAFER_SEED=42 go test ./core/takeover/ -run TestAlternate
//
// What is compared: sorting, threading and searching of messages with hard headers;
// everything that IMAP and POP3 tell of a tree that Dovecot and others have filled;
// the same after changes by either, in turns and at the same time.
//
// # BUGS
//
// Where Dovecot 2.3 departs from an RFC the tests leave the case out:
// an RFC 2047 charset with a language (RFC 2231 §5); a blank run across an encoded
// word and a folded line in a base subject (RFC 5256 §2.1); Date fields before 1970,
// and those with a day but without a valid time (RFC 5256 §2.2); messages without a
// Date in SENTBEFORE (RFC 9051 §6.4.4); an empty item in an address list (RFC 5322
// §4.4); the line end before a boundary (RFC 2046 §5.1.1). A blank in a searched text
// matches any run of blanks here, in Dovecot one space.
//
// Two programs that change the flags of one message at the same moment may undo each
// other's change, and a message that is moved away and back while the other program
// looks may get another UID; TestTogether steers clear of both.
package takeover
