package policy

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
)

// packetLimit is the longest milter packet in octets. Postfix sends bodies in pieces of 64 KiB, and
// no header longer than header_size_limit (100 KiB).
const packetLimit = 1 << 20

// Steps of the milter protocol (smfi_negotiate of libmilter, which is its only description) that a filter
// can do without, and those that it will not reply to.
const (
	noHelo           = 0x2
	noEndOfHeaders   = 0x40
	noUnknown        = 0x100
	noData           = 0x200
	leadingSpace     = 0x100000 // of a header's value is not taken away
	noReplyHeader    = 0x80
	noReplyConnect   = 0x1000
	noReplyHelo      = 0x2000
	noReplyMail      = 0x4000
	noReplyRcpt      = 0x8000
	noReplyData      = 0x10000
	noReplyUnknown   = 0x20000
	noReplyEndHeader = 0x40000
	noReplyBody      = 0x80000

	unwanted = noHelo | noEndOfHeaders | noUnknown | noData | leadingSpace | noReplyHeader | noReplyConnect | noReplyHelo |
		noReplyMail | noReplyRcpt | noReplyData | noReplyUnknown | noReplyEndHeader | noReplyBody
)

// noReply is the step that frees a command from its reply.
var noReply = map[byte]uint32{'C': noReplyConnect, 'H': noReplyHelo, 'M': noReplyMail, 'R': noReplyRcpt, 'T': noReplyData,
	'U': noReplyUnknown, 'L': noReplyHeader, 'N': noReplyEndHeader, 'B': noReplyBody}

const (
	milterVersion = 6
	setMacros     = 0x100 // the one action that we ask for: to choose the macros
)

// macros are those that we want at a stage: connect, HELO, MAIL, RCPT, DATA, end of message, and end of headers, which stands
// for each of them. By itself Postfix sends some at every stage.
var macros = [...]string{"", "", "", "{rcpt_addr}", "", "i", ""}

// A milterSession is one of a milter client's, and so of an SMTP session.
type milterSession struct {
	tap
	conn  *conn
	steps uint32 // what the MTA agreed to
	// Macros, which hold for the command that comes next: i, and {rcpt_addr}.
	queueID, resolved string
	// answered is the instance of the message whose recording was told the MTA last, as long as nothing shows that
	// the MTA has read so.
	answered string
}

// serveMilter is the session of one milter client.
func (p *Policy) serveMilter(_ context.Context, c *conn) error {
	s := &milterSession{tap: newTap(p), conn: c}
	for {
		packet, err := c.next(framePacket)
		if err != nil {
			p.hungUp(s.answered, err)
			return err
		}
		s.answered = ""
		command, rest := packet[4], packet[5:]
		if command == 'Q' {
			return nil
		}
		if err := s.event(command, rest); err != nil {
			return err
		}
		if command != 'D' {
			s.queueID, s.resolved = "", ""
		}
		c.busy.Store(s.open)
	}
}

// event takes one event, and replies where the MTA waits for it.
func (s *milterSession) event(command byte, rest []byte) error {
	switch command {
	case 'O':
		return s.negotiate(rest)
	case 'D':
		return s.define(rest)
	case 'A', 'K':
		s.reset()
		return nil
	case 'E':
		s.body(rest)
		return s.end()
	case 'C':
		address, err := clientAddress(rest)
		if err != nil {
			return err
		}
		s.connect(address)
	case 'M', 'R':
		address, _, whole := bytes.Cut(rest, []byte{0})
		if !whole {
			return cutOff
		}
		if command == 'M' {
			s.conn.busy.Store(true)
			s.mail(string(address))
			break
		}
		s.rcpt(string(address), s.resolved)
	case 'L':
		name, value, whole := bytes.Cut(rest, []byte{0})
		if !whole {
			return cutOff
		}
		s.header(name, bytes.TrimSuffix(value, []byte{0}), s.steps&leadingSpace == 0)
	case 'B':
		s.body(rest)
	case 'H', 'T', 'U', 'N':
	default:
		return badInput(fmt.Sprintf("a milter packet of the unknown kind %q", command))
	}
	if bit := noReply[command]; s.steps&bit == 0 {
		return s.conn.answer(packet("c"))
	}
	return nil
}

const cutOff = badInput("a milter packet is cut off")

// negotiate takes what the MTA offers of what we want, so that an older milter_protocol works too, only slower.
func (s *milterSession) negotiate(offer []byte) error {
	if len(offer) < 12 {
		return cutOff
	}
	version, actions, steps := binary.BigEndian.Uint32(offer), binary.BigEndian.Uint32(offer[4:]), binary.BigEndian.Uint32(offer[8:])
	if version < 2 {
		return badInput(fmt.Sprintf("the MTA speaks milter version %d, mailbag needs 2 or above", version))
	}
	s.steps = steps & unwanted
	reply := []byte{'O'}
	for _, v := range []uint32{min(version, milterVersion), actions & setMacros, s.steps} {
		reply = binary.BigEndian.AppendUint32(reply, v)
	}
	if actions&setMacros != 0 {
		for stage, names := range macros {
			reply = append(binary.BigEndian.AppendUint32(reply, uint32(stage)), names+"\x00"...)
		}
	}
	return s.conn.answer(packet(string(reply)))
}

// define takes what we want of the macros that come before a command. Others, of which a peer may send any number, are
// passed over.
func (s *milterSession) define(rest []byte) error {
	if len(rest) == 0 {
		return cutOff
	}
	for rest = rest[1:]; len(rest) > 0; {
		name, more, whole := bytes.Cut(rest, []byte{0})
		value, more, ended := bytes.Cut(more, []byte{0})
		if !whole || !ended {
			return cutOff
		}
		switch string(name) {
		case "i":
			s.queueID = string(value)
		case "{rcpt_addr}":
			s.resolved = string(value)
		}
		rest = more
	}
	return nil
}

// end replies to the end of a message.
func (s *milterSession) end() error {
	defer s.reset()
	counted, d, err := s.policy.record(s.arrived(s.queueID), func() error { return s.conn.answer(packet("c")) })
	switch {
	case err != nil:
		return err
	case d == dunno:
		s.answered = counted
		return nil
	}
	return s.conn.answer(packet("y" + d.action + "\x00"))
}

// clientAddress reads a connect event: a host name, a letter for the family, and, where that has them, a port and an
// address.
func clientAddress(rest []byte) (string, error) {
	_, rest, whole := bytes.Cut(rest, []byte{0})
	if !whole || len(rest) == 0 {
		return "", cutOff
	}
	if family := rest[0]; family != '4' && family != '6' {
		return "", nil
	}
	if len(rest) < 3 {
		return "", cutOff
	}
	address := strings.TrimSuffix(string(rest[3:]), "\x00")
	return strings.TrimPrefix(strings.Trim(address, "[]"), "IPv6:"), nil
}

// packet makes one of a command and what belongs to it.
func packet(text string) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)), uint32(len(text))), text...)
}

// framePacket finds the end of a milter packet: a length of four octets, then a command and what
// belongs to it.
func framePacket(b []byte, _ int) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	length := binary.BigEndian.Uint32(b)
	switch {
	case length == 0:
		return 0, badInput("a milter packet is empty")
	case length > packetLimit-4:
		return 0, badInput("a milter packet is longer than 1 MiB")
	case uint32(len(b)-4) < length:
		return 0, nil
	}
	return int(4 + length), nil
}
