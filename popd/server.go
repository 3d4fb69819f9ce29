package popd

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"mailbag/cmd/door"
)

// ServePOP3 serves clients that begin in the clear until Shutdown, then returns nil. The listener is closed when it
// returns.
func (s *Server) ServePOP3(l net.Listener) error { return s.serve(l, false) }

// ServePOP3S serves clients that begin with TLS (RFC 8314, section 3.3). Without a TLS configuration they are
// turned away.
func (s *Server) ServePOP3S(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, secure bool) error {
	words := sorry
	if secure {
		words = nil
	}
	return s.clients.Serve(l, func(peer net.Conn, from door.Client) door.Guest {
		return s.visitor(peer, from, secure)
	}, words)
}

// sorry is what a client is told for which there is no room.
func sorry(err error) string {
	return fmt.Sprintf("-ERR [SYS/TEMP] Please try again later: %v\r\n", err)
}

// A visitor is a POP3 client at the door.
type visitor struct {
	*conn
	client door.Client
	secure bool // TLS is to begin at once
}

func (s *Server) visitor(peer net.Conn, from door.Client, secure bool) *visitor {
	return &visitor{conn: &conn{Conn: peer, server: s, until: time.Now().Add(s.cfg.Bounds.Login)}, client: from, secure: secure}
}

// Serve is the client's session.
func (v *visitor) Serve() {
	defer v.close()
	door.Confine(v.Conn, strangerReceive, 0)
	if v.secure && !v.startTLS(v.server.cfg.TLS()) {
		return
	}
	s := &session{server: v.server, conn: v.conn, client: v.client, settle: func() { v.server.clients.Settle(v) }}
	s.run()
}

// startTLS goes on under TLS, and reports whether that worked.
func (c *conn) startTLS(cfg *tls.Config) bool {
	if cfg == nil {
		return false
	}
	c.Conn.SetDeadline(time.Now().Add(c.server.cfg.Bounds.Command))
	secured, err := door.Handshake(c.server.clients.Context(), c.Conn, cfg)
	if err != nil {
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
