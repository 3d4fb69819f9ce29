package daemon

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"mailbag/cmd/internal/settings"
)

// Certificates are a daemon's certificate chain and key. Their files are looked at when a client begins TLS, at
// most once a second, and read again when they are others than before: nobody need tell the daemon of a
// renewed certificate. Files that cannot be used, such as a new chain beside the old key while both are being
// replaced, change nothing: what was read last stays in use, and the trouble is logged once. So it is where other files
// are named.
type Certificates struct {
	named  func() settings.TLS
	log    *slog.Logger
	now    func() time.Time
	config *tls.Config

	mu      sync.Mutex
	files   settings.TLS // as they were named when they were looked at
	looked  time.Time
	seen    [2]fs.FileInfo // chain and key, as they were when they were read
	pair    *tls.Certificate
	failing string // what was logged last
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// NewCertificates reads the files. It is no error that they are missing or cannot be used; that is
// logged.
func NewCertificates(named func() settings.TLS, log *slog.Logger) *Certificates {
	c := &Certificates{named: named, log: log, now: time.Now}
	c.config = &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8996: 1.0 and 1.1 must not be used
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := c.current(); pair != nil {
				return pair, nil
			}
			return nil, errors.New("there is no certificate")
		},
	}
	c.current()
	return c
}

// Config returns what TLS is served with, or nil while there is no certificate and no TLS to be
// offered. It is to be asked anew for each connection.
func (c *Certificates) Config() *tls.Config {
	if c.current() == nil {
		return nil
	}
	return c.config
}

// current returns the certificate of now, nil if none was ever read.
func (c *Certificates) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.looked.IsZero() || now.Sub(c.looked) >= lookEvery || now.Before(c.looked) {
		c.looked = now
		c.look()
	}
	return c.pair
}

func (c *Certificates) look() {
	if files := c.named(); files != c.files {
		c.files, c.seen, c.failing = files, [2]fs.FileInfo{}, ""
	}
	seen, err := c.stat()
	if err == nil {
		if c.failing == "" && c.pair != nil && unchanged(seen, c.seen) {
			return
		}
		err = c.read()
	}
	switch {
	case err == nil:
		c.seen, c.failing = seen, ""
	case err.Error() == c.failing:
	default:
		c.failing = err.Error()
		c.complain(err)
	}
}

func (c *Certificates) stat() (seen [2]fs.FileInfo, err error) {
	for i, path := range []string{c.files.Certificate, c.files.Key} {
		if seen[i], err = os.Stat(path); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

// unchanged compares as far as a file that is written anew, or that a symbolic link points to in the
// place of another, differs.
func unchanged(a, b [2]fs.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

func (c *Certificates) read() error {
	pair, err := tls.LoadX509KeyPair(c.files.Certificate, c.files.Key)
	if err != nil {
		return err
	}
	c.pair = &pair
	c.log.Info("certificate loaded", "file", c.files.Certificate, "names", pair.Leaf.DNSNames, "until", pair.Leaf.NotAfter)
	if c.now().After(pair.Leaf.NotAfter) {
		c.log.Warn("the certificate is out of date; clients will refuse it", "file", c.files.Certificate)
	}
	return nil
}

func (c *Certificates) complain(err error) {
	switch {
	case c.pair != nil:
		c.log.Error("the certificate files cannot be used; the certificate that was read before stays in use until they can",
			"certificate", c.files.Certificate, "key", c.files.Key, "error", err)
	case errors.Is(err, fs.ErrNotExist):
		c.log.Warn("there is no certificate; TLS is not offered until there is one", "certificate", c.files.Certificate, "key", c.files.Key)
	default:
		c.log.Error("the certificate files cannot be used; TLS is not offered until they can",
			"certificate", c.files.Certificate, "key", c.files.Key, "error", err)
	}
}
