package login

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// RFC 5802, section 6: a client that can bind to the channel and was told that the server cannot is being
// deceived, where the server can.
func TestSCRAMDetectsThatTheOfferWasTamperedWith(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := handshake(t, version)
		talk := newSCRAM256("acme", right, "").NewConversationAdvertisingChannelBinding()
		_, challenges, err := g.converse(t, c.server, scramClient{"SCRAM-SHA-256", talk})
		if !errors.Is(err, ErrFailed) || len(challenges) != 0 {
			t.Errorf("%s: %q, %v; want %v", tls.VersionName(version), challenges, err, ErrFailed)
		}
		if !strings.Contains(g.lines(), "user=acme mechanism=SCRAM-SHA-256 reason=channel-binding\n") {
			t.Errorf("the log is %s", g.lines())
		}
	}
	// Without TLS there is nothing to bind to, and the client was told the truth.
	talk := newSCRAM256("acme", right, "").NewConversationAdvertisingChannelBinding()
	if _, _, err := g.converse(t, outside, scramClient{"SCRAM-SHA-256", talk}); err != nil {
		t.Errorf("without TLS: %v", err)
	}
}

func TestSCRAMCannotBePassedOnByAnotherConnection(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		// The client has its connection with somebody who has one with us.
		theirs, ours := handshake(t, version), handshake(t, version)
		if _, _, err := g.converse(t, ours.server, theirs.newSCRAMClient("acme", right)); err != ErrFailed {
			t.Errorf("%s: %v, want %v", tls.VersionName(version), err, ErrFailed)
		}
	}
	if !strings.Contains(g.lines(), "reason=channel-binding") {
		t.Errorf("the log is %s", g.lines())
	}
}

func TestSCRAMsBindingGoesWithItsMechanism(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	c := handshake(t, tls.VersionTLS13)
	client := newSCRAM256("acme", right, "")
	unbound := client.NewConversation()
	bound := client.NewConversationWithChannelBinding(c.binding())
	other := client.NewConversationWithChannelBinding(scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: []byte("x")})
	for _, s := range []scramClient{{"SCRAM-SHA-256-PLUS", unbound}, {"SCRAM-SHA-256", bound}, {"SCRAM-SHA-256-PLUS", other}} {
		if _, _, err := g.converse(t, c.server, s); !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v, want %v", s.mechanism, err, ErrFailed)
		}
	}
}

func TestNobodyActsForAnother(t *testing.T) {
	t.Parallel()
	g := newGate(t, AccountNames)
	as := func(authzid string) error {
		_, _, err := g.converse(t, outside, scramClient{"SCRAM-SHA-256", newSCRAM256("acme", right, authzid).NewConversation()})
		return err
	}
	if err := as("acme"); err != nil {
		t.Errorf("SCRAM for oneself: %v", err)
	}
	if err := as("plainly"); err != ErrFailed {
		t.Errorf("SCRAM for another: %v, want %v", err, ErrFailed)
	}
	x := g.start(t, plainly, "PLAIN")
	if _, _, err := x.Next([]byte("plainly\x00acme\x00" + right)); err != ErrFailed {
		t.Errorf("PLAIN for another: %v, want %v", err, ErrFailed)
	}
	if got := strings.Count(g.lines(), "reason=authorization-identity\n"); got != 2 {
		t.Errorf("the log is %s", g.lines())
	}
}

// salt asks for a log-in's salt, as anybody may.
func (g *gate) salt(t *testing.T, user string) string {
	t.Helper()
	challenge, _, err := g.start(t, outside, "SCRAM-SHA-256").Next([]byte("n,,n=" + user + ",r=nonce"))
	if err != nil {
		t.Fatal(err)
	}
	_, salt, ok := strings.Cut(string(challenge), ",")
	if !ok {
		t.Fatalf("the challenge is %q", challenge)
	}
	return salt
}

func TestSaltDoesNotTellWhetherALogInExists(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	for _, spellings := range [][]string{
		{"kim@boxes.example", "KIM@Boxes.Example", "kim%boxes.example"},
		{"lee@boxes.example", "LEE@Boxes.Example", "lee%boxes.example"},
		{"kim@nobodys.example", "KIM@Nobodys.Example", "kim%nobodys.example"},
		{"boxes", "Boxes", "BOXES"},
		{"nobody", "Nobody", "NOBODY"},
		{"mute", "Mute", "MUTE"},
		{"@nobodys.example", "@Nobodys.Example", "%nobodys.example"},
		{"not an address@", "Not An Address@", "NOT AN ADDRESS@"},
	} {
		first := g.salt(t, spellings[0])
		for _, name := range spellings {
			if got := g.salt(t, name); got != first || !strings.HasSuffix(got, ",i=10000") || len(got) != len("s=,i=10000")+24 {
				t.Errorf("%s is shown %s, after %s", name, got, first)
			}
		}
		if strings.Contains(spellings[0], "lee") && first == g.salt(t, "kim@boxes.example") {
			t.Errorf("%s has another's salt", spellings[0])
		}
	}
}
