package door

import "net"

// Confine bounds the kernel's buffers of a connection, in octets; 0 leaves one as it is. What comes while nobody reads, as
// during the delay of a log-in, and what the peer does not take, is memory that a peer has of ours: a quarter
// of a megabyte and more each.
func Confine(conn net.Conn, receive, send int) {
	if r, ok := conn.(*relayed); ok {
		conn = r.Conn
	}
	sized, ok := conn.(interface {
		SetReadBuffer(octets int) error
		SetWriteBuffer(octets int) error
	})
	if !ok {
		return // without a socket
	}
	// Where the kernel does not, it can be done without.
	if receive > 0 {
		_ = sized.SetReadBuffer(receive)
	}
	if send > 0 {
		_ = sized.SetWriteBuffer(send)
	}
}
