package meter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
)

// dialTLS connects to a node that has a certificate of the CA, and shows it this machine's. The files are read each time, so that they
// can be renewed.
func (o Options) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("the CA of the ledger's nodes cannot be read: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", o.CA)
	}
	if o.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate for the ledger's nodes cannot be used: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: attempt}, Config: c}
	return d.DialContext(ctx, network, address)
}
