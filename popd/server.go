package popd

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// ServePOP3 serves clients that begin in the clear until Shutdown, then returns nil. The listener is closed when it
// returns.
func (s *Server) ServePOP3(l net.Listener) error { return s.serve(l, false) }

// ServePOP3S serves clients that begin with TLS (RFC 8314, section 3.3). Without a TLS configuration they are
// turned away.
func (s *Server) ServePOP3S(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, secure bool) error {
	defer l.Close()
	if !s.listen(l) {
		return nil
	}
	defer s.wait.Done()
	for {
		peer, err := l.Accept()
		switch {
		case err == nil:
			s.take(peer, secure)
		case s.closing.Load():
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			if n, ok := s.trouble.allow(); ok {
				s.log.Error("cannot accept a connection; is the limit of open files too low?", "error", err, "more", n)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
		default:
			return err
		}
	}
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.open[l] = struct{}{}
	s.wait.Add(1)
	return true
}

// take starts a session, or turns the client away where there are too many: the ones that are inside are not to suffer.
func (s *Server) take(peer net.Conn, secure bool) {
	addr := clientAddr(peer)
	c := &conn{Conn: peer, server: s, until: time.Now().Add(s.cfg.Bounds.Login)}
	if !s.clients.enter(c, network(addr)) {
		if !secure {
			peer.SetWriteDeadline(time.Now().Add(time.Second))
			peer.Write([]byte("-ERR [SYS/TEMP] There are too many connections, please try again later\r\n"))
		}
		peer.Close()
		return
	}
	s.wait.Add(1)
	if s.closing.Load() {
		c.drain()
	}
	go func() {
		defer s.wait.Done()
		defer s.clients.leave(c)
		defer c.close()
		if secure && !c.startTLS(s.cfg.TLS()) {
			return
		}
		session := &session{server: s, conn: c, addr: addr}
		session.run()
	}()
}

// clientAddr is the client's IP address, the zero Addr where it has none.
func clientAddr(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// startTLS goes on under TLS, and reports whether that worked.
func (c *conn) startTLS(cfg *tls.Config) bool {
	if cfg == nil {
		return false
	}
	secured := tls.Server(c.Conn, cfg)
	c.Conn.SetDeadline(time.Now().Add(c.server.cfg.Bounds.Command))
	if err := secured.HandshakeContext(c.server.ctx); err != nil {
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
