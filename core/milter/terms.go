package milter

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Versions of the protocol.
const (
	oldest     = 2
	newest     = 6
	withData   = 4 // the first that knows DATA
	withSilent = 6 // the first that leaves answers out of commands other than header fields
)

// Steps that a milter may ask for.
const (
	noConnect = 1 << iota
	noHelo
	noMail
	noRcpt
	noBody
	noHeaders
	noEOH
	silentHeader // no answer to a header field
	noUnknown
	noData
	maySkip
	rejectedRcpt // be told of refused recipients, too
	silentConnect
	silentHelo
	silentMail
	silentRcpt
	silentData
	silentUnknown
	silentEOH
	silentBody
	leadingSpace // keep the blanks after a field's colon
)

const (
	offeredActions = 1<<9 - 1 // add, change and delete what there is; set the lists of macros
	offeredSteps   = 1<<21 - 1 - rejectedRcpt
	setMacros      = 1 << 8
)

// step is how a command may be left out, or be left without an answer.
type step struct{ skip, silent uint32 }

func stepOf(cmd byte) step {
	switch cmd {
	case cmdConnect:
		return step{noConnect, silentConnect}
	case cmdHelo:
		return step{noHelo, silentHelo}
	case cmdMail:
		return step{noMail, silentMail}
	case cmdRcpt:
		return step{noRcpt, silentRcpt}
	case cmdData:
		return step{noData, silentData}
	case cmdHeader:
		return step{noHeaders, silentHeader}
	case cmdEOH:
		return step{noEOH, silentEOH}
	case cmdBody:
		return step{noBody, silentBody}
	}
	return step{}
}

// terms are what both sides have agreed on.
type terms struct {
	version        uint32
	actions, steps uint32
	macros         map[byte][]string // the lists that the milter has set, by command; names without braces
}

func (t *terms) wants(cmd byte) bool {
	return t.steps&stepOf(cmd).skip == 0 && (cmd != cmdData || t.version >= withData)
}

func (t *terms) answers(cmd byte) bool { return t.steps&stepOf(cmd).silent == 0 }

// offer is the data of the packet that begins a connection.
func offer() []byte {
	b := binary.BigEndian.AppendUint32(nil, newest)
	b = binary.BigEndian.AppendUint32(b, offeredActions)
	return binary.BigEndian.AppendUint32(b, offeredSteps)
}

// parseTerms reads the milter's answer to the offer. One that wants what was not
// offered would be cheated of it, and is refused.
func parseTerms(data []byte) (*terms, error) {
	if len(data) < 12 {
		return nil, fmt.Errorf("negotiation of %d octets: %w", len(data), errGarbage)
	}
	t := &terms{version: binary.BigEndian.Uint32(data), actions: binary.BigEndian.Uint32(data[4:]), steps: binary.BigEndian.Uint32(data[8:])}
	if t.version < oldest || t.version > newest {
		return nil, fmt.Errorf("it speaks version %d of the protocol, not %d to %d", t.version, oldest, newest)
	}
	if more := t.actions &^ offeredActions; more != 0 {
		return nil, fmt.Errorf("it wants actions %#x that were not offered", more)
	}
	if more := t.steps &^ offeredSteps; more != 0 {
		return nil, fmt.Errorf("it wants protocol steps %#x that were not offered", more)
	}
	if t.version < withSilent { // bits that its version does not have mean nothing
		t.steps &= silentConnect - 1
	}
	if t.actions&setMacros == 0 {
		return t, nil
	}
	return t, t.readMacros(data[12:])
}

// Bounds of the lists of macros.
const (
	maxLists     = 16
	maxNames     = 100 // of a list
	maxMacroName = 64  // octets
)

// readMacros reads the lists: a number of a stage and names, again and again.
func (t *terms) readMacros(data []byte) error {
	commands := [...]byte{cmdConnect, cmdHelo, cmdMail, cmdRcpt, cmdData, cmdEOB, cmdEOH}
	t.macros = map[byte][]string{}
	for n := 0; len(data) > 0; n++ {
		if len(data) < 4 || n == maxLists {
			return fmt.Errorf("lists of macros: %w", errGarbage)
		}
		stage := binary.BigEndian.Uint32(data)
		list, rest, ok := cutString(data[4:])
		if !ok {
			return fmt.Errorf("a list of macros does not end: %w", errGarbage)
		}
		data = rest
		if stage >= uint32(len(commands)) {
			continue // of a stage that is not sent
		}
		names := strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
		if len(names) > maxNames {
			return fmt.Errorf("a list of %d macros: %w", len(names), errGarbage)
		}
		for i, name := range names {
			if len(name) > maxMacroName {
				return fmt.Errorf("a macro's name of %d octets: %w", len(name), errGarbage)
			}
			names[i] = bare(name)
		}
		t.macros[commands[stage]] = names
	}
	return nil
}
