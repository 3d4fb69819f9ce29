package login

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mailbag/testdata/certificate"
)

// An entrance speaks as much SMTP (RFC 5321, RFC 3207, RFC 4954) as programs need to log in.
type entrance struct {
	*gate
	certificate *certificate.Certificate
	plain       bool // passwords may come in the clear
	port        string
	roots       string // file
}

func openEntrance(t *testing.T, plain bool) *entrance {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &entrance{gate: newGate(t, AccountNames), certificate: certificate.New(t, "localhost"), plain: plain}
	_, d.port, _ = net.SplitHostPort(l.Addr().String())
	d.roots = filepath.Join(t.TempDir(), "roots.pem")
	d.certificate.Write(t, d.roots, "")
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				d.serve(t, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		sessions.Wait()
	})
	return d
}

func (d *entrance) serve(t *testing.T, conn net.Conn) {
	// The programs run here and are to be treated as if they did not.
	peer := Peer{Addr: netip.MustParseAddr("192.0.2.1"), Plain: d.plain}
	in := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	say("220 mx.example")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			return
		}
		switch strings.ToUpper(words[0]) {
		case "EHLO":
			say("250-mx.example")
			if peer.TLS == nil {
				say("250-STARTTLS")
			}
			say("250 AUTH %s", strings.Join(d.Mechanisms(peer), " "))
		case "STARTTLS":
			say("220 go on")
			encrypted := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{d.certificate.Pair}})
			if err := encrypted.Handshake(); err != nil {
				t.Error(err)
				return
			}
			state := encrypted.ConnectionState()
			conn, in, peer.TLS = encrypted, bufio.NewReader(encrypted), &state
		case "AUTH":
			say("%s", d.auth(t, peer, words[1:], in, say))
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 no")
		}
	}
}

// auth returns the reply to AUTH.
func (d *entrance) auth(t *testing.T, peer Peer, words []string, in *bufio.Reader, say func(string, ...any)) string {
	x, err := d.Start(t.Context(), peer, words[0])
	if err != nil {
		return "504 " + err.Error()
	}
	var response []byte
	if len(words) > 1 {
		if response, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(words[1], "=")); err != nil {
			return "501 no base64"
		}
	}
	for {
		challenge, done, err := x.Next(response)
		switch {
		case err != nil:
			return "535 " + err.Error()
		case done:
			return "235 welcome, " + x.Identity().Login
		}
		say("334 %s", base64.StdEncoding.EncodeToString(challenge))
		line, err := in.ReadString('\n')
		if err != nil {
			return "501 no line"
		}
		if response, err = base64.StdEncoding.DecodeString(strings.TrimSpace(line)); err != nil {
			return "501 no base64"
		}
	}
}

// run has a program log in, and reports whether it could.
func run(t *testing.T, name string, args ...string) (bool, string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{"HOME=" + t.TempDir()} // and no settings of who runs the tests
	output, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return err == nil, string(output)
}

const smtplib = `
import smtplib, ssl, sys
port, roots, starttls, mechanism, initial, user, password = sys.argv[1:]
with smtplib.SMTP("127.0.0.1", int(port)) as client:
    client.user, client.password = user, password
    if starttls:
        client.starttls(context=ssl.create_default_context(cafile=roots))
    client.ehlo()
    if mechanism:
        answer = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
        client.auth(mechanism, answer, initial_response_ok=bool(initial))
    else:
        client.login(user, password)
`

func TestPythonsSmtplibLogsIn(t *testing.T) {
	t.Parallel()
	d := openEntrance(t, true)
	for _, mechanism := range []string{"", "CRAM-MD5", "PLAIN", "LOGIN"} {
		for _, starttls := range []string{"", "yes"} {
			for _, initial := range []string{"", "yes"} {
				if mechanism == "CRAM-MD5" && initial != "" {
					continue // the server speaks first
				}
				what := fmt.Sprintf("%s, STARTTLS: %q, initial response: %q", mechanism, starttls, initial)
				if ok, output := run(t, "python3", "-c", smtplib, d.port, d.roots, starttls, mechanism, initial, "acme", right); !ok {
					t.Errorf("%s: it is not let in:\n%s", what, output)
				}
			}
		}
		if ok, output := run(t, "python3", "-c", smtplib, d.port, d.roots, "yes", mechanism, "", "acme", wrong); ok || !strings.Contains(output, "SMTPAuthenticationError: (535") {
			t.Errorf("%s with a wrong password: it is let in, %v, and says:\n%s", mechanism, ok, output)
		}
	}
}

func TestGNUSASLBindsItsLogInToTLS(t *testing.T) {
	t.Parallel()
	d := openEntrance(t, false)
	for _, c := range []struct{ priority, mechanism, wanted string }{
		{"NORMAL:-VERS-ALL:+VERS-TLS1.2", "SCRAM-SHA-256-PLUS", ""},
		{"NORMAL:-VERS-ALL:+VERS-TLS1.3", "SCRAM-SHA-256-PLUS", ""},
		{"NORMAL", "", "SCRAM-SHA-256-PLUS"},
		{"NORMAL", "CRAM-MD5", ""},
		{"NORMAL", "PLAIN", ""},
		{"NORMAL", "LOGIN", ""},
	} {
		for password, want := range map[string]bool{right: true, wrong: false} {
			args := []string{"--smtp", "--connect=127.0.0.1:" + d.port, "--starttls", "--x509-ca-file=" + d.roots, "--priority=" + c.priority,
				"--authentication-id=acme", "--password=" + password, "--verbose"}
			if c.mechanism != "" {
				args = append(args, "--mechanism="+c.mechanism)
			}
			ok, output := run(t, "gsasl", args...)
			if ok != want || strings.Contains(output, "235 welcome, acme") != want || !strings.Contains(output, "AUTH "+c.mechanism+c.wanted) {
				t.Errorf("%+v with %q: it is let in: %v\n%s", c, password, ok, output)
			}
		}
	}
}

func TestCurlLogsIn(t *testing.T) {
	t.Parallel()
	d := openEntrance(t, false)
	for _, mechanism := range []string{"*", "CRAM-MD5", "PLAIN", "LOGIN"} {
		for password, want := range map[string]bool{right: true, wrong: false} {
			ok, output := run(t, "curl", "--silent", "--verbose", "--ssl-reqd", "--cacert", d.roots, "--user", "acme:"+password,
				"--login-options", "AUTH="+mechanism, "--request", "QUIT", "smtp://127.0.0.1:"+d.port)
			if got := strings.Contains(output, "235 welcome, acme"); got != want {
				t.Errorf("%s with %q: it is let in: %v, %v\n%s", mechanism, password, got, ok, output)
			}
		}
	}
}
