package door

import (
	"net"
	"sync"
)

// Sole returns a listener of one connection, for libraries that serve nothing but listeners. The second Accept waits
// until the library closed the connection, and ends with [net.ErrClosed]; closing the listener does nothing.
func Sole(conn net.Conn) net.Listener {
	return &sole{conn: &closing{Conn: conn, closed: make(chan struct{})}}
}

type sole struct {
	conn  *closing
	taken bool
}

func (s *sole) Accept() (net.Conn, error) {
	if !s.taken {
		s.taken = true
		return s.conn, nil
	}
	<-s.conn.closed
	return nil, net.ErrClosed
}

func (s *sole) Close() error   { return nil }
func (s *sole) Addr() net.Addr { return s.conn.LocalAddr() }

// closing tells that it was closed.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
