package relay

import "strings"

// maxKnown bounds what is remembered of a connection, in addresses.
const maxKnown = 20_000

// learn remembers that the server accepted a path behind MAIL or RCPT. c.mu is held.
func (c *Channel) learn(command, path string) {
	if len(c.known) < maxKnown {
		c.known[command+address(path)] = true
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
