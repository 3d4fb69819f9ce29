package peer

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/testdata/certificate"
	postfixtest "mailbag/testdata/postfix"
)

func TestGatewayHasItsQuirks(t *testing.T) {
	for name, quirk := range map[string]Quirk{
		"bdat-refused":   Says("BDAT", "502 5.5.1 no"),
		"bdat-dropped":   Says("BDAT", postfixtest.HangUp),
		"dsn-refused":    RefusesDSN("555 5.5.4 what"),
		"choked":         ChokesOn("POISON"),
		"ended-421":      EndsAfter(1, "421 4.7.0 enough"),
		"ended-452":      EndsAfter(1, "452 4.5.3 enough"),
		"ended-silently": EndsAfter(1, postfixtest.HangUp),
		"limits":         Limits(2, 1),
		"two-codes":      Says("RCPT", "250-2.1.5 Ok\r\n251 2.1.5 will forward"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := RunGateway(t, quirk)
			if err := postfixtest.Dialogue(g.Addr(), "", filepath.Join("testdata", "gateway", name+".smtp"), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGatewayRemembersWhatItChokedOn(t *testing.T) {
	t.Parallel()
	g := RunGateway(t, ChokesOn("POISON"))
	for range 2 {
		if err := postfixtest.Dialogue(g.Addr(), "", filepath.Join("testdata", "gateway", "choked.smtp"), nil); err != nil {
			t.Error(err)
		}
	}
	if got := g.Choked(); len(got) != 2 || got[0].Recipients[0] != "b@acme.example" || len(g.Messages()) != 2 || g.Sessions() != 2 {
		t.Errorf("it choked on %+v, took %d messages over %d connections", got, len(g.Messages()), g.Sessions())
	}
}

func TestGatewaySwallowsGroups(t *testing.T) {
	t.Parallel()
	c, err := postfixtest.Dial(RunGateway(t, SwallowsGroups()).Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, d := range [][2]string{
		{"EHLO client.example", "250"},
		{"MAIL FROM:<x@elsewhere.example>\r\nRCPT TO:<a@acme.example>\r\nDATA", "250"},
		{"DATA", "554"}, // the recipient was lost
	} {
		if reply, err := c.Say(d[0]); err != nil || !strings.HasPrefix(reply, d[1]) {
			t.Errorf("%q: %q, %v", d[0], reply, err)
		}
	}
}

// A lower bound only: a loaded machine may take longer.
func TestGatewayGreetsLate(t *testing.T) {
	t.Parallel()
	began := time.Now()
	c, err := postfixtest.Dial(RunGateway(t, GreetsAfter(200*time.Millisecond)).Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("it greeted after %v", took)
	}
}

func TestGatewayEncrypts(t *testing.T) {
	server := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mail.customer.example").Pair}}
	old := server.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	demanding := server.Clone()
	demanding.MinVersion, demanding.ClientAuth = tls.VersionTLS13, tls.RequireAnyClientCert
	for name, c := range map[string]struct {
		quirks []Quirk
		works  bool // behind the handshake, which does in each
	}{
		"well":                         {[]Quirk{StartsTLS(server)}, true},
		"by TLS 1.0":                   {[]Quirk{StartsTLS(old)}, true},
		"and closes":                   {[]Quirk{StartsTLS(server), ClosesUnderTLS()}, false},
		"who has a certificate itself": {[]Quirk{StartsTLS(demanding)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wire, err := net.Dial("tcp", RunGateway(t, c.quirks...).Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer wire.Close()
			in := bufio.NewReader(wire)
			for _, command := range []string{"", "EHLO client.example", "STARTTLS"} {
				if reply, err := ask(wire, in, command); err != nil || reply[0] != '2' {
					t.Fatalf("%q: %q, %v", command, reply, err)
				}
			}
			secure := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
			if err := secure.Handshake(); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(secure, "EHLO client.example\r\n") // the reply is what counts
			reply, err := bufio.NewReader(secure).ReadString('\n')
			if works := err == nil && strings.HasPrefix(reply, "250"); works != c.works {
				t.Errorf("it said %q, %v", reply, err)
			}
		})
	}
}
