package door

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// maxHello is how much a client may send until the handshake of TLS is over, in octets. A ClientHello with the keys of
// ML-KEM has some 1,800; crypto/tls would gather 64 KiB.
const maxHello = 16 << 10

var errHello = errors.New("the handshake is longer than any client's")

// Handshake is the server's part of a handshake of TLS with a stranger, who may send little meanwhile. It has a goroutine
// of its own, whose stack, far larger than what a session needs, goes when it is over.
func Handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	hello := &hello{Conn: conn, left: maxHello}
	secured := tls.Server(hello, config)
	done := make(chan error)
	go func() { done <- secured.HandshakeContext(ctx) }()
	if err := <-done; err != nil {
		return nil, err
	}
	hello.over = true
	return secured, nil
}

// A hello is a connection during the handshake.
type hello struct {
	net.Conn
	left int // octets
	over bool
}

func (h *hello) Read(p []byte) (int, error) {
	if h.over {
		return h.Conn.Read(p)
	}
	if h.left == 0 {
		return 0, errHello
	}
	n, err := h.Conn.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}
