package meter

import (
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/testdata/certificate"
	rqlitetest "mailbag/testdata/rqlite"
)

// TestNodesAreAskedWithCertificatesAndCredentials has files replaced one after another, as those of a ledger that is open are.
func TestNodesAreAskedWithCertificatesAndCredentials(t *testing.T) {
	t.Parallel()
	needsFile(t)
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs, strangers := certificate.New(t, "mx-a.example"), certificate.New(t, "mx-b.example"), certificate.New(t, "mx-c.example")
	theirs.Write(t, at("node.pem"), at("node.key"))
	ours.Write(t, at("clients.pem"), "")
	write("users", `[{"username": "*", "perms": ["ready", "join"]},
		{"username": "mailbag", "password": "secret", "perms": ["query", "execute", "backup"]}, {"username": "reader", "password": "r", "perms": ["query"]}]`)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: theirs.Roots, Certificates: []tls.Certificate{ours.Pair}}}}
	nodes, err := rqlitetest.Start(t.Context(), dir, 1, rqlitetest.Options{Client: client, Args: []string{
		"-http-cert", at("node.pem"), "-http-key", at("node.key"), "-http-ca-cert", at("clients.pem"), "-http-verify-client", "-auth", at("users")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes.Stop)
	theirs.Write(t, at("ca.pem"), "")
	ours.Write(t, at("own.pem"), at("own.key"))
	write("credentials", "mailbag:secret")
	l, err := Open(t.Context(), nodes.Address(0), Options{Create: true, Beside: at("mailbag.db"), Credentials: at("credentials"), CA: at("ca.pem"), Certificate: at("own.pem"), Key: at("own.key")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Remove(at("ca.pem")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		credentials string
		ca, own     *certificate.Certificate
		says        string // empty: it is done
	}{
		{"mailbag:secret", nil, ours, "the CA cannot be read"},
		{"mailbag:secret", strangers, ours, "its certificate is not good, or not of the CA in cluster.ca"},
		{"mailbag:secret", theirs, strangers, "it does not take the certificate of this machine, see cluster.certificate"},
		{"secret", theirs, ours, "has no line USER:PASSWORD"},
		{"mailbag:wrong", theirs, ours, "user or password are wrong there"},
		{"mailbag:secret\n", theirs, ours, ""},
		{"reader:r", theirs, ours, "has not all of the permissions"},
		{"mailbag:secret", theirs, ours, ""},
	} {
		if step.ca != nil {
			step.ca.Write(t, at("ca.pem"), "")
		}
		step.own.Write(t, at("own.pem"), at("own.key"))
		write("credentials", step.credentials)
		l.engine.close() // connections that are idle
		err := l.Writable(t.Context())
		if step.says == "" && err != nil {
			t.Errorf("with all that it takes it says %v", err)
		}
		if step.says != "" && (!errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), step.says)) {
			t.Errorf("in place of %q it says %v", step.says, err)
		}
	}
	if err := l.Backup(t.Context(), at("copy.db")); err != nil {
		t.Error(err)
	}
}
