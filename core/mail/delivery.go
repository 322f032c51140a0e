package mail

import "io"

// Route says where a recipient's mail goes next. Recipients of a message with
// the same route share an attempt.
type Route struct {
	Transport string // name of the transport: "smtp", "local", "lmtp", or one that the configuration names
	Hop       string // next hop as the transport reads it: a domain, "host:port", "[192.0.2.1]:25", "unix:/path"; "" where it needs none
}

// Delivery is one attempt to bring a message to some of its recipients by one
// route. Who is handed one must not change it.
type Delivery struct {
	Envelope *Envelope   // Rcpts are those of this attempt
	Head     []byte      // whole header fields that go above Body; CR LF line ends
	Body     io.ReaderAt // the message as it was received, header section and all; CR LF line ends, dots not doubled
	Size     int64       // of Body in octets
	EightBit bool        // there are octets above 127 in Head or Body
	Route    Route
}

// Outcome is what an attempt came to for one recipient.
type Outcome struct {
	Status Status // 2xx: it is the next host's now; 4xx: to be tried again; 5xx: not to be tried again
	// Remote is the host whose reply Status is, "mx.example.org[192.0.2.1]:25";
	// "" if Status is our own finding. A remote's text is kept word for word.
	Remote string
	// Notifies is true where the next host sends what DSNs the sender asked for
	// (RFC 3461 §5.2); otherwise success notices are ours.
	Notifies bool
}

// Report is what an attempt came to.
type Report struct {
	Outcomes []Outcome // one for each of the envelope's Rcpts, by index
	// Unreachable is true if the destination, rather than this message, was what
	// failed: nobody answered, or not before MAIL. It makes the queue careful.
	Unreachable bool
}
