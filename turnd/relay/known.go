package relay

import "strings"

// maxKnown bounds what is remembered of a connection, in addresses.
const maxKnown = 20_000

// learn remembers what the server accepted of a transaction. c.mu is held.
func (c *Channel) learn(d *Delivery) {
	if len(c.known)+1+len(d.to) > maxKnown {
		return
	}
	c.known["MAIL"+address(d.from)] = true
	for i, to := range d.to {
		if d.accepted[i] {
			c.known["RCPT"+address(to)] = true
		}
	}
}

// knows reports whether the server has accepted the sender and every recipient before, so that a
// refusal is not to be expected. c.mu is held.
func (c *Channel) knows(d *Delivery) bool {
	if !c.known["MAIL"+address(d.from)] {
		return false
	}
	for _, to := range d.to {
		if !c.known["RCPT"+address(to)] {
			return false
		}
	}
	return true
}

// address is a path without its parameters.
func address(path string) string {
	return path[:strings.LastIndexByte(path, '>')+1]
}
