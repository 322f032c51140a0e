package milter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What the MTA says. The first six and their macros belong together.
const (
	cmdConnect = 'C'
	cmdHelo    = 'H'
	cmdMail    = 'M'
	cmdRcpt    = 'R'
	cmdData    = 'T' // since version 4
	cmdEOH     = 'N'
	cmdHeader  = 'L'
	cmdBody    = 'B'
	cmdEOB     = 'E'
	cmdMacro   = 'D'
	cmdAbort   = 'A'
	cmdQuit    = 'Q'
	cmdOptNeg  = 'O'
)

// What the milter answers.
const (
	ansContinue  = 'c'
	ansAccept    = 'a'
	ansReject    = 'r'
	ansTempFail  = 't'
	ansDiscard   = 'd'
	ansReply     = 'y'
	ansShutdown  = '4'
	ansConnFail  = 'f'
	ansSkip      = 's' // since version 6: no more of the same kind
	ansProgress  = 'p' // wait
	ansAddRcpt   = '+' // this and the next ones after EOB only
	ansAddRcptP  = '2'
	ansDelRcpt   = '-'
	ansAddHeader = 'h'
	ansInsHeader = 'i'
	ansChgHeader = 'm'
	ansChgFrom   = 'e'
	ansReplBody  = 'b'
	ansHold      = 'q'
)

// Bounds of the protocol and of what is read from a milter.
const (
	maxPacket    = 256 << 10 // octets of a packet that is read; the protocol's own is 64 KiB
	chunkSize    = 65535     // octets of body in a packet (MILTER_CHUNK_SIZE)
	maxValue     = 60000     // octets of a header field's body that are sent; libmilter hangs up above 65535
	maxProgress  = 10000     // "wait" before an answer
	maxChanges   = 1000      // of one message, body chunks apart
	maxChanged   = 1 << 20   // octets of them
	maxBodySent  = 16384     // chunks of a replaced body
	headOfPacket = 5
)

// errGarbage says that the milter does not keep to the protocol.
var errGarbage = errors.New("not understood")

// appendPacket appends a packet with data to b.
func appendPacket(b []byte, cmd byte, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)+1))
	return append(append(b, cmd), data...)
}

// appendString appends s and a NUL. A NUL within s would begin the next string;
// it becomes a space.
func appendString(b []byte, s string) []byte {
	at := len(b)
	b = append(b, s...)
	for i := at; i < len(b); i++ {
		if b[i] == 0 {
			b[i] = ' '
		}
	}
	return append(b, 0)
}

// readPacket reads a packet of at most maxPacket octets. The data are its own.
func readPacket(r *bufio.Reader) (code byte, data []byte, err error) {
	var head [headOfPacket]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 1 || n > maxPacket {
		return 0, nil, fmt.Errorf("a packet of %d octets: %w", n, errGarbage)
	}
	if code, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	data = make([]byte, n-1)
	_, err = io.ReadFull(r, data)
	return code, data, err
}

// cutString is the string at the beginning of data, and what follows its NUL.
func cutString(data []byte) (s string, rest []byte, ok bool) {
	for i, c := range data {
		if c == 0 {
			return string(data[:i]), data[i+1:], true
		}
	}
	return "", nil, false
}
