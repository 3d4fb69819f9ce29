package popd

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"mailbag/meter/door"
)

// ServePOP3 serves clients that begin in the clear until Shutdown, then returns nil. The listener is closed when it
// returns.
func (s *Server) ServePOP3(l net.Listener) error { return s.serve(l, false) }

// ServePOP3S serves clients that begin with TLS (RFC 8314, section 3.3). Without a TLS configuration they are
// turned away.
func (s *Server) ServePOP3S(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, secure bool) error {
	return s.clients.Serve(l, func(peer net.Conn) { s.take(peer, secure) })
}

// take starts a session, or turns the client away where there are too many.
func (s *Server) take(peer net.Conn, secure bool) {
	addr := door.ClientAddr(peer)
	c := &conn{Conn: peer, server: s, until: time.Now().Add(s.cfg.Bounds.Login)}
	if err := s.clients.Enter(c, addr); err != nil {
		if !secure {
			peer.SetWriteDeadline(time.Now().Add(time.Second)) // it fits into an empty socket
			fmt.Fprintf(peer, "-ERR [SYS/TEMP] Please try again later: %v\r\n", err)
		}
		peer.Close()
		return
	}
	go func() {
		defer s.clients.Leave(c)
		defer c.close()
		if secure && !c.startTLS(s.cfg.TLS()) {
			return
		}
		session := &session{server: s, conn: c, addr: addr}
		session.run()
	}()
}

// startTLS goes on under TLS, and reports whether that worked.
func (c *conn) startTLS(cfg *tls.Config) bool {
	if cfg == nil {
		return false
	}
	secured := tls.Server(c.Conn, cfg)
	c.Conn.SetDeadline(time.Now().Add(c.server.cfg.Bounds.Command))
	if err := secured.HandshakeContext(c.server.clients.Context()); err != nil {
		return false
	}
	c.Conn.SetDeadline(time.Time{})
	state := secured.ConnectionState()
	c.tls = &state
	c.mu.Lock()
	c.Conn = secured
	c.mu.Unlock()
	return true
}
