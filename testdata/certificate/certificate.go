// Package certificate makes certificates for tests: each signs itself, is for one name and for
// 127.0.0.1 and ::1, and is good for a day.
package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// A Certificate is one with its key, in all the forms that servers and clients want.
type Certificate struct {
	Pair  tls.Certificate
	Roots *x509.CertPool // that trust it and nothing else
	Chain []byte         // PEM
	Key   []byte         // PEM
}

// New makes a certificate for the name.
func New(t testing.TB, name string) *Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name}, // without one curl refuses it
		DNSNames:     []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := &Certificate{
		Roots: x509.NewCertPool(),
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
	if c.Pair, err = tls.X509KeyPair(c.Chain, c.Key); err != nil {
		t.Fatal(err)
	}
	c.Roots.AddCert(c.Pair.Leaf)
	return c
}

// Write puts the chain and the key into files, which the group may read; a path that is empty is left out.
func (c *Certificate) Write(t testing.TB, chain, key string) {
	t.Helper()
	for path, text := range map[string][]byte{chain: c.Chain, key: c.Key} {
		if path == "" {
			continue
		}
		if err := os.WriteFile(path, text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}
