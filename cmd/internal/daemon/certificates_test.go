package daemon

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
	"mailbag/testdata/certificate"
)

// A certificateDesk is a daemon's certificates in a directory where a test replaces them, with a clock
// that it moves.
type certificateDesk struct {
	t     *testing.T
	files settings.TLS
	log   bytes.Buffer
	clock time.Time
	*Certificates
}

func newCertificateDesk(t *testing.T, prepare func(*certificateDesk)) *certificateDesk {
	dir := t.TempDir()
	d := &certificateDesk{t: t, clock: time.Now(), files: settings.TLS{
		Certificate: filepath.Join(dir, "fullchain.pem"), Key: filepath.Join(dir, "privkey.pem"),
	}}
	if prepare != nil {
		prepare(d)
	}
	d.Certificates = NewCertificates(func() settings.TLS { return d.files }, slog.New(slog.NewTextHandler(&d.log, nil)))
	d.Certificates.now = func() time.Time { return d.clock }
	return d
}

// later is when the files are looked at again.
func (d *certificateDesk) later() { d.clock = d.clock.Add(2 * lookEvery) }

func (d *certificateDesk) write(path string, text []byte) {
	d.t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *certificateDesk) install(name string) {
	d.t.Helper()
	certificate.New(d.t, name).Write(d.t, d.files.Certificate, d.files.Key)
}

// serves does a handshake and returns the name in the certificate that the client got.
func (d *certificateDesk) serves(config *tls.Config, version uint16) (string, error) {
	d.t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		tls.Server(ours, config).Handshake()
		ours.Close()
	}()
	defer func() { <-served }()
	client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	defer theirs.Close()
	if err := client.Handshake(); err != nil {
		return "", err
	}
	return client.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func (d *certificateDesk) expect(config *tls.Config, want string) {
	d.t.Helper()
	if config == nil {
		d.t.Fatal("TLS is not offered")
	}
	if got, err := d.serves(config, tls.VersionTLS13); err != nil || got != want {
		d.t.Fatalf("the client got the certificate %q, %v; want %q", got, err, want)
	}
}

// complaints counts the lines of the log above INFO.
func (d *certificateDesk) complaints() int {
	return strings.Count(d.log.String(), "level=ERROR") + strings.Count(d.log.String(), "level=WARN")
}

func TestRenewedCertificateIsServedWithoutARestart(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, func(d *certificateDesk) { d.install("old.example") })
	held := d.Config() // as a server that asks only once holds it
	d.expect(held, "old.example")
	d.install("new.example")
	d.later()
	d.expect(held, "new.example")
	d.expect(d.Config(), "new.example")
	if d.complaints() != 0 {
		t.Errorf("the log is %s", &d.log)
	}
}

func TestRenewalByASymbolicLinkIsSeen(t *testing.T) {
	t.Parallel()
	// As certbot does it: the links point into an archive.
	d := newCertificateDesk(t, nil)
	archive := d.t.TempDir()
	link := func(name string) {
		c := certificate.New(t, name)
		for path, text := range map[string][]byte{d.files.Certificate: c.Chain, d.files.Key: c.Key} {
			file := filepath.Join(archive, name+filepath.Base(path))
			d.write(file, text)
			os.Remove(path)
			if err := os.Symlink(file, path); err != nil {
				t.Fatal(err)
			}
		}
		d.later()
	}
	link("one.example")
	d.expect(d.Config(), "one.example")
	link("two.example")
	d.expect(d.Config(), "two.example")
}

func TestUnusableFilesLeaveTheCertificateInUse(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(d *certificateDesk){
		"half a chain": func(d *certificateDesk) {
			chain := certificate.New(d.t, "half.example").Chain
			d.write(d.files.Certificate, chain[:len(chain)/2])
		},
		"a new chain beside the old key": func(d *certificateDesk) {
			certificate.New(d.t, "other.example").Write(d.t, d.files.Certificate, "")
		},
		"an empty key":  func(d *certificateDesk) { d.write(d.files.Key, nil) },
		"no chain":      func(d *certificateDesk) { os.Remove(d.files.Certificate) },
		"no directory":  func(d *certificateDesk) { os.RemoveAll(filepath.Dir(d.files.Key)) },
		"a key as file": func(d *certificateDesk) { os.Remove(d.files.Key); os.Mkdir(d.files.Key, 0o700) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d := newCertificateDesk(t, func(d *certificateDesk) { d.install("good.example") })
			spoil(d)
			for range 3 {
				d.later()
				d.expect(d.Config(), "good.example")
			}
			if d.complaints() != 1 || !strings.Contains(d.log.String(), "stays in use") {
				t.Errorf("the log is %s", &d.log)
			}
			os.MkdirAll(filepath.Dir(d.files.Key), 0o700)
			os.Remove(d.files.Key)
			d.install("mended.example")
			d.later()
			d.expect(d.Config(), "mended.example")
		})
	}
}

func TestCertificateOfOtherFilesIsServedOnceItCanBeRead(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, func(d *certificateDesk) { d.install("old.example") })
	elsewhere := t.TempDir()
	d.files = settings.TLS{Certificate: filepath.Join(elsewhere, "chain.pem"), Key: filepath.Join(elsewhere, "key.pem")}
	for range 3 {
		d.later()
		d.expect(d.Config(), "old.example")
	}
	if d.complaints() != 1 || !strings.Contains(d.log.String(), "stays in use") || !strings.Contains(d.log.String(), elsewhere) {
		t.Errorf("the log is %s", &d.log)
	}
	d.install("new.example")
	d.later()
	d.expect(d.Config(), "new.example")
}

func TestTLSIsOfferedOnceThereIsACertificate(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, nil)
	for range 3 {
		if d.Config() != nil {
			t.Fatal("TLS is offered without a certificate")
		}
		d.later()
	}
	if d.complaints() != 1 || !strings.Contains(d.log.String(), "there is no certificate") {
		t.Errorf("the log is %s", &d.log)
	}
	d.install("first.example")
	d.later()
	d.expect(d.Config(), "first.example")
}

func TestCertificateThatIsOutOfDateIsPointedOut(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, func(d *certificateDesk) { d.install("good.example") })
	d.clock = d.clock.Add(48 * time.Hour)
	d.install("stale.example")
	d.expect(d.Config(), "stale.example")
	if d.complaints() != 1 || !strings.Contains(d.log.String(), "out of date") {
		t.Errorf("the log is %s", &d.log)
	}
}

func TestFilesAreNotLookedAtForEveryClient(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, func(d *certificateDesk) { d.install("old.example") })
	d.later()
	d.expect(d.Config(), "old.example")
	d.install("new.example")
	d.expect(d.Config(), "old.example")
	d.clock = d.clock.Add(lookEvery)
	d.expect(d.Config(), "new.example")
}

func TestTLSBefore12IsRefused(t *testing.T) {
	t.Parallel()
	d := newCertificateDesk(t, func(d *certificateDesk) { d.install("good.example") })
	for version, taken := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if _, err := d.serves(d.Config(), version); (err == nil) != taken {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}
