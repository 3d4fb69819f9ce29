package popd

import (
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// All who want in wait at the door while a client makes room, and one that takes nothing is not to hold them up.
func TestCloseDoesNotWaitForAClientUnderTLS(t *testing.T) {
	t.Parallel()
	var cfg Config
	withTLS(t)(&cfg)
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		handshake := make(chan error)
		go func() {
			handshake <- tls.Client(far, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}).Handshake()
		}()
		c := &conn{Conn: tls.Server(near, cfg.TLS())}
		if err := c.Conn.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-handshake; err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		c.Close()
		if waited := time.Since(before); waited > 0 { // by the clock of the bubble, which stands still unless all wait
			t.Errorf("it waited for %v", waited)
		}
	})
}
