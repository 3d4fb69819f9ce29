package policy

import (
	"bytes"
	"encoding/binary"
	"net"
	"time"
)

// packetLimit is the longest milter packet in octets. Postfix sends bodies in pieces of 64 KiB, and
// no header longer than header_size_limit (100 KiB).
const packetLimit = 1 << 20

// A milterConn gives the milter library whole and well-formed packets. By itself the library takes
// any length up to 512 MiB at its word, and indexes past the end of some packets that are too short.
// Deadlines are ours: the library knows one time for everything, and takes a second for the first
// packet, which a loaded machine may exceed.
type milterConn struct {
	*conn
	packet []byte // what is left of the current one
	err    error  // why the session ended, when not by its peer
}

func (c *milterConn) Read(b []byte) (int, error) {
	if len(c.packet) == 0 {
		packet, err := c.next(framePacket)
		if err != nil {
			if c.err == nil {
				c.err = err
			}
			return 0, net.ErrClosed // which the library does not log
		}
		c.packet = packet
	}
	n := copy(b, c.packet)
	c.packet = c.packet[n:]
	return n, nil
}

func (c *milterConn) Write(b []byte) (int, error) {
	if err := c.answer(b); err != nil {
		c.err = err
		return 0, net.ErrClosed
	}
	return len(b), nil
}

func (c *milterConn) SetDeadline(time.Time) error      { return nil }
func (c *milterConn) SetReadDeadline(time.Time) error  { return nil }
func (c *milterConn) SetWriteDeadline(time.Time) error { return nil }

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
	command, rest := b[4], b[5:4+length]
	end := bytes.IndexByte(rest, 0)
	switch {
	case command == 'C' && (end < 0 || end+1 == len(rest)),
		(command == 'M' || command == 'R') && end < 0:
		return 0, badInput("a milter packet is cut off")
	}
	return int(4 + length), nil
}
