package turnd

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/meter"
)

// certificate is a TLS configuration with one.
func certificate() *tls.Config {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates, MinVersion: tls.VersionTLS12}
}

func openTLS(t *testing.T, configure func(*Config)) *front {
	config := certificate()
	return open(t, func(c *Config) {
		c.TLS = func() *tls.Config { return config }
		if configure != nil {
			configure(c)
		}
	})
}

func TestWhatIsSentBehindSTARTTLSIsDropped(t *testing.T) {
	t.Parallel()
	f := openTLS(t, nil)
	c := dialFrom(t, "127.0.0.30", f.addr)
	c.expect("220")
	if offer := c.say("EHLO client.example", "250-STARTTLS"); strings.Contains(offer, "PLAIN") {
		t.Errorf("without TLS the server offers %q", offer)
	}
	c.send("STARTTLS\r\nETRN bolt.example\r\nNOOP\r\n")
	c.expect("220 2.0.0")
	c.startTLS()
	// Nothing that was learnt before is known any more (RFC 3207, section 4.2).
	c.say("AUTH PLAIN "+plainText("corp", password("corp")), "503")
	if offer := c.say("EHLO client.example", "250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"); strings.Contains(offer, "STARTTLS") {
		t.Errorf("under TLS the server offers %q", offer)
	}
	c.say("STARTTLS", "503")
	c.say("AUTH PLAIN "+plainText("corp", password("corp")), "235")
	c.say("ATRN", "250")
	c.expect("220 a turn of corp")
	if got := f.turns.clients[0]; got.Addr != "192.0.2.30" || got.TLS != "TLS 1.3" {
		t.Errorf("the turn is for %+v", got)
	}
}

func TestTLSMayBeginAtOnce(t *testing.T) {
	t.Parallel()
	f := openTLS(t, nil)
	c := dialFrom(t, "127.0.0.30", f.listen(t, f.ServeTLS))
	c.startTLS()
	c.login("corp")
	c.say("QUIT", "221")
	c.closed()
}

func TestWithoutACertificateTLSIsNotServed(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	dial(t, f.listen(t, f.ServeTLS)).closed()
}

func TestClientThatSpeaksNoTLSBehindSTARTTLSIsDropped(t *testing.T) {
	t.Parallel()
	c := dial(t, openTLS(t, nil).addr)
	c.expect("220")
	c.say("STARTTLS", "220")
	c.send("EHLO client.example\r\n")
	c.closed()
}

func TestCRAMMD5LogsIn(t *testing.T) {
	t.Parallel()
	c := dialFrom(t, "127.0.0.30", open(t, nil).addr)
	c.expect("220")
	c.say("EHLO client.example", "250")
	text := strings.TrimSpace(strings.TrimPrefix(c.say("AUTH CRAM-MD5", "334 "), "334 "))
	challenge, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(md5.New, []byte(password("corp")))
	mac.Write(challenge)
	c.say(base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "corp %x", mac.Sum(nil))), "235")
}

func TestWhatIsSentBehindATRNBelongsToTheReversedSession(t *testing.T) {
	t.Parallel()
	f := openTLS(t, nil)
	for _, under := range []string{"TCP", "TLS"} {
		t.Run(under, func(t *testing.T) {
			t.Parallel()
			c := dial(t, f.addr)
			c.expect("220")
			if under == "TLS" {
				c.say("STARTTLS", "220")
				c.startTLS()
			}
			c.send("EHLO client.example\r\n")
			c.expect("250")
			c.say("AUTH PLAIN "+plainText("corp", password("corp")), "235")
			c.send("ATRN corp.example\r\nNOOP first\r\nNOOP second\r\nQU")
			c.expect("250 2.0.0 OK, now reversing")
			c.expect("220 a turn of corp")
			c.expect("250 NOOP first")
			c.expect("250 NOOP second")
			c.say("IT", "250 QUIT")
			c.closed()
		})
	}
}

func TestAnswersToPipelinedCommandsLeaveTogether(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	c := dial(t, f.addr)
	c.expect("220")
	c.say("EHLO client.example", "250-PIPELINING")
	before := f.writes.Load()
	c.send("NOOP\r\nRSET\r\nETRN bolt.example\r\nMAIL FROM:<>\r\nNO")
	for _, reply := range []string{"250", "250", "253", "502"} {
		c.expect(reply)
	}
	if n := f.writes.Load() - before; n != 1 {
		t.Errorf("four replies left in %d writes", n)
	}
	c.say("OP", "250")
}

func TestATRNIsForTheAccountAsItIsNow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*front) error
		reply  string
	}{
		{"suspended", func(f *front) error {
			_, _, err := f.ledger.EditAccount(t.Context(), "corp", "suspend", func(a *meter.Account) error { a.Suspended = true; return nil })
			return err
		}, "450 4.2.1"},
		{"with a network", func(f *front) error {
			return f.ledger.AddNetwork(t.Context(), "corp", netip.MustParsePrefix("192.0.2.0/24"))
		}, "450 4.7.1 This account may not ask for its mail from your address"},
		{"deleted", func(f *front) error { return f.ledger.DeleteAccount(t.Context(), "corp") }, "450 4.7.1 There is no such account"},
		{"without a domain", func(f *front) error { return f.ledger.RemoveDomain(t.Context(), "corp", "corp.test") }, "450 4.7.1 ATRN request refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := open(t, nil)
			c := dial(t, f.addr)
			c.login("corp")
			before := f.cfg.Accounts.Directory()
			if err := test.change(f); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the change", func() bool { return f.cfg.Accounts.Directory() != before })
			c.say("ATRN corp.test", test.reply)
			c.say("ATRN corp.test", test.reply)
			if n := strings.Count(f.log.String(), `msg="ATRN refused" client=127.0.0.1 account=corp`); n != 1 {
				t.Errorf("the refusals are logged %d times:\n%s", n, f.log)
			}
			if slices.ContainsFunc(f.turns.asked, func(s string) bool { return strings.HasPrefix(s, "reverse") }) {
				t.Error("a turn was made ready")
			}
		})
	}
}

func TestATRNAsksForTheDomainsThatItNames(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	for _, args := range []string{"", " corp.test,CORP.TEST,b\u00fccher.example"} {
		c := dial(t, f.addr)
		c.login("corp")
		c.say("ATRN"+args, "250")
		c.expect("220")
		c.say("QUIT", "250")
	}
	want := []string{"reverse corp []", "reverse corp [corp.test xn--bcher-kva.example]"}
	if !slices.Equal(f.turns.asked, want) {
		t.Errorf("asked for %q, want %q", f.turns.asked, want)
	}
}

func TestTurnIsCancelledWhenTheClientIsGone(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	f.turns.reversing = func() {
		for _, c := range f.door.Guests() {
			c.Close()
		}
	}
	c := dial(t, f.addr)
	c.login("corp")
	c.send("ATRN\r\n")
	c.closed()
	waitFor(t, "the turn is cancelled", func() bool {
		f.turns.mu.Lock()
		defer f.turns.mu.Unlock()
		return f.turns.cancelled == 1
	})
}

// unread is a ledger that was never read.
type unread struct{}

func (unread) Directory() *meter.Directory { return nil }

func TestWithoutALedgerEverythingIsPutOff(t *testing.T) {
	t.Parallel()
	f := open(t, func(c *Config) { c.Accounts = unread{} })
	c := dial(t, f.addr)
	c.login("corp")
	c.say("ATRN", "451 4.3.0")
	c.say("ETRN bolt.example", "458 4.3.0")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	c = dial(t, f.addr)
	c.expect("220")
	c.say("EHLO client.example", "250")
	c.say("AUTH PLAIN "+plainText("corp", password("corp")), "454 4.7.0")
}

func TestNoPasswordIsLogged(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	c := dial(t, f.addr)
	c.expect("220")
	c.say("EHLO client.example", "250")
	c.say("AUTH PLAIN "+plainText("corp", "guessed-it"), "535")
	c.say("AUTH PLAIN "+plainText("corp", password("corp")), "235")
	for _, secret := range []string{"guessed-it", password("corp"), plainText("corp", password("corp")), plainText("corp", "guessed-it")} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, f.log)
		}
	}
	if !strings.Contains(f.log.String(), "corp") {
		t.Errorf("the log tells nothing of the log-ins:\n%s", f.log)
	}
}

func TestSessionIsBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		limits Limits
		send   string
		last   string
	}{
		{"in commands", Limits{Commands: 3}, strings.Repeat("NOOP\r\n", 4), "421 4.7.0 Too many commands"},
		{"in long answers", Limits{}, strings.Repeat("EHLO x\r\n", maxLong+1), "421 4.7.0 Too many commands"},
		{"in mistakes", Limits{Failures: 2}, "BDAT 1\r\nBDAT 1\r\n", "421 4.7.0 Too many errors"},
		{"in silence", Limits{Idle: time.Second}, "", "421 4.4.2 Nothing was heard"},
		{"in the time for a line", Limits{Idle: time.Second}, "NOOP", "421 4.4.2 Nothing was heard"},
		{"in time", Limits{Session: time.Second}, "NOOP\r\n", "421 4.4.2 The session takes too long"},
		{"in the length of a line", Limits{}, strings.Repeat("x", 2*(maxLine+maxSkipped)), "421 4.5.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := open(t, func(c *Config) { c.Limits = test.limits })
			c := dial(t, f.addr)
			c.expect("220")
			go c.conn.Write([]byte(test.send))
			for {
				line, err := c.r.ReadString('\n')
				if err != nil {
					t.Fatalf("the connection ended without %q: %v", test.last, err)
				}
				if strings.HasPrefix(line, test.last) {
					break
				}
			}
		})
	}
}

func TestClientThatReadsNothingIsLeft(t *testing.T) {
	t.Parallel()
	f := open(t, func(c *Config) { c.Limits = Limits{Commands: 1_000_000, Write: time.Second} })
	c := dial(t, f.addr)
	c.expect("220")
	go c.conn.Write(bytes.Repeat([]byte("EHLO client.example\r\n"), 100_000))
	waitFor(t, "the session has ended", func() bool { return len(f.door.Guests()) == 0 })
}

func TestShutdownTellsIdleClientsAndWaitsForTurns(t *testing.T) {
	t.Parallel()
	f := openTLS(t, nil)
	idle := dial(t, f.addr)
	idle.expect("220")
	crypted := dial(t, f.addr)
	crypted.expect("220")
	crypted.say("STARTTLS", "220")
	crypted.startTLS()
	crypted.say("NOOP", "250")
	within := dial(t, f.addr) // of a log-in
	within.expect("220")
	within.say("EHLO client.example", "250")
	within.say("AUTH PLAIN", "334")
	turning := dial(t, f.addr)
	turning.login("corp")
	turning.say("ATRN", "250")
	turning.expect("220 a turn")

	ended := make(chan error, 1)
	go func() { ended <- f.Shutdown(t.Context()) }()
	for _, c := range []*client{idle, crypted, within} {
		c.expect("421 4.3.2")
		c.closed()
	}
	if _, err := net.Dial("tcp", f.addr); err == nil {
		t.Error("the port is still open")
	}
	turning.say("NOOP", "250 NOOP")
	select {
	case err := <-ended:
		t.Fatalf("Shutdown ended within a turn: %v", err)
	default:
	}
	turning.say("QUIT", "250")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := f.Serve(unused(t)); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func unused(t *testing.T) net.Listener {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestShutdownWithoutPatienceClosesConnections(t *testing.T) {
	t.Parallel()
	f := open(t, nil)
	c := dial(t, f.addr)
	c.login("corp")
	c.say("ATRN", "250")
	c.expect("220 a turn")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v", err)
	}
	c.closed()
}
