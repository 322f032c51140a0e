package smtpd

import "time"

// Limits bounds what a peer can cost. A zero field means its default, which
// its comment gives. Octets count as they are on the wire, except that
// MessageSize counts the message without transparency dots (RFC 1870 §5).
type Limits struct {
	MessageSize int64 // octets, inclusive; 52428800
	HeaderSize  int   // octets of a message's header section; 1048576
	TextLine    int   // octets of one line of a message, with CR LF; 1048576
	Hops        int   // Received fields of a message; 50
	Drain       int64 // octets read and dropped after a message is refused, then the session closes; 16777216
	CommandLine int   // octets with CR LF; 4096
	AuthLine    int   // octets with CR LF of AUTH and its responses; 12288 (RFC 4954 §4)

	Recipients int // of one message; 1000
	Overshoot  int // recipients refused beyond that before they count as errors; 1000
	Messages   int // transactions in a session (MAILMAX of RFC 9422); 0: no limit

	SoftErrors   int           // refused commands after which replies slow down; 10
	HardErrors   int           // refused commands after which the session ends; 20
	JunkCommands int           // NOOP, RSET, VRFY, … between messages before they count as errors; 100
	ErrorDelay   time.Duration // how much they slow down; 1 s
	AuthFailures int           // failed AUTH commands in a session; 5
	Tarpit       time.Duration // longest wait that a policy can ask for; 30 s
	GreetDelay   time.Duration // wait for early talkers before the greeting on MX; 0

	Idle       time.Duration // for one whole command line; 5 min (RFC 5321 §4.5.3.2.7)
	Write      time.Duration // until the peer takes our replies; 2 min
	Handshake  time.Duration // TLS handshake; 30 s
	Proxy      time.Duration // PROXY header; 5 s
	Data       time.Duration // whole message; 1 h
	DataIdle   time.Duration // between two pieces of a message; 3 min (RFC 5321 §4.5.3.2.5)
	DataGrace  time.Duration // head start before MinRate is asked for; 1 min
	MinRate    int64         // octets per second of a message on average; 500
	Session    time.Duration // whole session; 2 h
	Linger     time.Duration // wait for a refused peer to read our last words; 1 s
	AcceptWait time.Duration // longest pause after a failed accept; 1 s
}

// filled returns l with the defaults in its zero fields.
func (l Limits) filled() Limits {
	number(&l.MessageSize, 50<<20)
	number(&l.HeaderSize, 1<<20)
	number(&l.TextLine, 1<<20)
	number(&l.Hops, 50)
	number(&l.Drain, 16<<20)
	number(&l.CommandLine, 4096)
	number(&l.AuthLine, 12288)
	// a line must fit into the buffer that it is parsed in
	l.CommandLine = min(l.CommandLine, largeBuffer/2)
	l.AuthLine = min(l.AuthLine, largeBuffer/2)
	number(&l.Recipients, 1000)
	number(&l.Overshoot, 1000)
	number(&l.SoftErrors, 10)
	number(&l.HardErrors, 20)
	number(&l.JunkCommands, 100)
	number(&l.ErrorDelay, time.Second)
	number(&l.AuthFailures, 5)
	number(&l.Tarpit, 30*time.Second)
	number(&l.Idle, 5*time.Minute)
	number(&l.Write, 2*time.Minute)
	number(&l.Handshake, 30*time.Second)
	number(&l.Proxy, 5*time.Second)
	number(&l.Data, time.Hour)
	number(&l.DataIdle, 3*time.Minute)
	number(&l.DataGrace, time.Minute)
	number(&l.MinRate, 500)
	number(&l.Session, 2*time.Hour)
	number(&l.Linger, time.Second)
	number(&l.AcceptWait, time.Second)
	return l
}

func number[T ~int | ~int64](field *T, fallback T) {
	if *field == 0 {
		*field = fallback
	}
}
