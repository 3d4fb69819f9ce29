package meter

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/testdata/certificate"
)

// TestNodesAndTheirClientsKnowEachOtherByCertificates has a server in place of a node, of which only the handshake matters. The
// files are replaced one after another, as those of a ledger that is open are.
func TestNodesAndTheirClientsKnowEachOtherByCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opt := Options{CA: filepath.Join(dir, "ca.pem"), Certificate: filepath.Join(dir, "certificate.pem"), Key: filepath.Join(dir, "key.pem")}
	ours, theirs, strangers := certificate.New(t, "mx-a.example"), certificate.New(t, "mx-b.example"), certificate.New(t, "mx-c.example")
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"results":[{}]}`)
	}))
	node.TLS = &tls.Config{Certificates: []tls.Certificate{theirs.Pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.Roots}
	node.StartTLS()
	defer node.Close()
	e := newRqlite(Scheme+node.Listener.Addr().String(), opt)
	defer e.close()
	for _, step := range []struct {
		ca, own *certificate.Certificate
		refused bool
		word    string // in the error
	}{
		{nil, ours, true, "the CA of the ledger's nodes cannot be read"},
		{strangers, ours, true, "certificate signed by unknown authority"},
		{theirs, strangers, true, ""}, // which the client may learn of by a lost connection only
		{theirs, ours, false, ""},
	} {
		if step.ca != nil {
			step.ca.Write(t, opt.CA, "")
		}
		step.own.Write(t, opt.Certificate, opt.Key)
		e.close() // what is idle
		err := e.nodes.ask(t.Context(), e.nodes.urls[0], request{path: "/?", answer: results(1, nil, unread)}, time.Minute)
		if step.refused != (err != nil) || err != nil && !strings.Contains(err.Error(), step.word) {
			t.Errorf("refused: %t %q; it says %v", step.refused, step.word, err)
		}
	}
}
