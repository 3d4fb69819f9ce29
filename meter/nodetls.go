package meter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// tlsTrouble says what is wrong where TLS did not come about, and whether it stays so until somebody mends it.
func tlsTrouble(err error) (word string, stays bool) {
	var untrusted *tls.CertificateVerificationError
	var remote *net.OpError
	switch {
	case errors.As(err, &untrusted):
		return "its certificate is not good, or not of the CA in cluster.ca: ", true
	case errors.As(err, &remote) && remote.Op == "remote error":
		return "it does not take the certificate of this machine, see cluster.certificate: ", true
	}
	return "", errors.Is(err, errTLSFiles)
}

var errTLSFiles = errors.New("no TLS is spoken with the ledger's nodes")

// dialTLS connects to a node that has a certificate of the CA, and shows it this machine's. The files are read each time, so that they
// can be renewed.
func (o Options) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: the CA cannot be read: %w", errTLSFiles, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s has no certificate in PEM", errTLSFiles, o.CA)
	}
	if o.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(o.Certificate, o.Key)
		if err != nil {
			return nil, fmt.Errorf("%w: %s and %s cannot be used: %w", errTLSFiles, o.Certificate, o.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: attempt}, Config: c}
	return d.DialContext(ctx, network, address)
}
