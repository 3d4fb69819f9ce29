package login

import (
	"crypto/tls"
	"net/netip"

	"github.com/xdg-go/scram"
)

// A Peer is the client at the other end of a connection.
type Peer struct {
	Addr  netip.Addr
	Local bool                 // it is on this machine, and did not come through a proxy
	TLS   *tls.ConnectionState // nil: the connection is not encrypted
	Plain bool                 // it may send passwords in the clear all the same
}

// PlainAllowed reports whether the client may send a password as it is: under TLS, from this machine,
// or where the operator says so.
func (p Peer) PlainAllowed() bool {
	return p.TLS != nil || p.Plain || p.Local
}

// binding is what SCRAM binds a log-in to, so that nobody in the middle can pass it on: tls-exporter with
// TLS 1.3 (RFC 9266, section 3), tls-unique before (RFC 5802, section 6.1). tls-server-end-point is not
// offered: it binds to the certificate and not to the connection, so it is worth less than either.
func (p Peer) binding() (scram.ChannelBinding, bool) {
	var b scram.ChannelBinding
	switch {
	case p.TLS == nil:
	case p.TLS.Version >= tls.VersionTLS13:
		b, _ = scram.NewTLSExporterBinding(p.TLS) // its only error is a state that can be bound to nothing
	default:
		// crypto/tls leaves it empty where it would not be unique (RFC 7627, section 5.4).
		b = scram.NewTLSUniqueBinding(p.TLS.TLSUnique)
	}
	return b, b.IsSupported()
}
