package popd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/meter/login"
)

// A script is a connection whose client has said everything already.
type script struct {
	net.Conn
	in      io.Reader
	out     bytes.Buffer
	largest int // of the writes
}

func (s *script) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *script) Write(p []byte) (int, error) {
	s.largest = max(s.largest, len(p))
	return s.out.Write(p)
}

func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error                     { return nil }

// A stage is a server without sockets and ledger, whose log-ins nobody knows. Their verifiers have one iteration, and so
// have those of who does not exist.
type stage struct {
	*Server
	directory *meter.Directory
	store     *Store
	mailbox   string // path of the only message
}

var cheap = &meter.Verifier{Salt: make([]byte, 16), Iterations: 1, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)}

func (s *stage) Directory() *meter.Directory                                 { return s.directory }
func (s *stage) Fresh(context.Context) (*meter.Directory, error)             { return s.directory, nil }
func (s *stage) RecordPopSessions(context.Context, []meter.PopSession) error { return nil }
func (s *stage) Verifier(_ context.Context, login string) (*meter.Verifier, error) {
	if login == "dent" {
		return cheap, nil
	}
	return nil, nil
}

func newStage(t testing.TB) *stage {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true})
	must(err)
	defer ledger.Close()
	must(ledger.AddAccount(t.Context(), meter.Account{Name: "dent", Mode: meter.POP3, Domains: []string{"dent.example"}, CatchAll: true,
		Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, cheap))
	s := &stage{store: NewStore(t.TempDir(), time.Now)}
	s.directory, err = ledger.Load(t.Context())
	must(err)
	logins, err := login.New(login.Config{Service: "popd", Accounts: s, Verifiers: s, Names: login.MailboxNames,
		Guard: &login.Guard{Wait: func(context.Context, time.Duration) error { return nil }}})
	must(err)
	s.Server, err = New(Config{Accounts: s, Logins: logins, Sessions: s, Store: s.store, Hostname: "mx.example", Plain: func() bool { return true }})
	must(err)
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	must(s.store.Maildir("dent", "").Create())
	s.mailbox = filepath.Join(s.store.Maildir("dent", "").Path(), "new", "1.x,S=21,W=25")
	return s
}

// play has a client say all of it, logged in or not, and returns the session after its end.
func (s *stage) play(t testing.TB, said string, loggedIn bool) (*session, *script) {
	t.Helper()
	talk := &script{in: strings.NewReader(said)}
	c := &session{server: s.Server, conn: &conn{Conn: talk, server: s.Server, until: time.Now().Add(time.Hour)},
		client: door.Client{Addr: netip.MustParseAddr("192.0.2.1")}, settle: func() {}}
	if loggedIn {
		if err := os.WriteFile(s.mailbox, []byte("Subject: x\n\n.dot\nend\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		a := s.directory.Account("dent")
		c.enter(login.Identity{Login: a.Name, Account: a}, nil)
	}
	c.run()
	return c, talk
}

// FuzzCommands has a client say anything, before the log-in and after it.
func FuzzCommands(f *testing.F) {
	for _, said := range []string{
		"USER dent\r\nPASS secret word\r\nUSER nobody\r\nPASS x\r\nQUIT\r\n", "AUTH PLAIN AGRlbnQAc2VjcmV0IHdvcmQ=\r\nRETR -1\r\n",
		"AUTH LOGIN\r\n*\r\nCAPA\r\n", "\x00\xff\n\n\r\n", "STLS\r\nQUIT\r\n", "AUTH SCRAM-SHA-256 biwsbj1kZW50LHI9YQ==\r\nx\r\n",
		"STAT\r\nLIST\r\nUIDL 1\r\nTOP 1 1\r\nRETR 1\r\nDELE 1\r\nRSET\r\nQUIT\r\n", "DELE 1\r\nSTAT\r\nQUIT\r\n", "DELE 1\r\nQUI",
	} {
		f.Add(said, true)
		f.Add(said, false)
	}
	s := newStage(f)
	f.Fuzz(func(t *testing.T, said string, loggedIn bool) {
		c, talk := s.play(t, said, loggedIn)
		answers := talk.out.String()
		if !strings.HasPrefix(answers, "+OK ") || strings.Count(answers, "\n") != strings.Count(answers, "\r\n") || !strings.HasSuffix(answers, "\r\n") {
			t.Errorf("%q is answered %q", said, answers)
		}
		if !loggedIn {
			if c.drop != nil {
				t.Errorf("%q logs in", said)
			}
			return
		}
		if _, err := os.Stat(s.mailbox); err != nil && c.record.Outcome != errQuit.Error() {
			t.Errorf("after %q the message is gone, and the session ended because %s", said, c.record.Outcome)
		}
	})
}

func TestStrangerHasLittleOfTheServersMemory(t *testing.T) {
	t.Parallel()
	stranger := &conn{until: time.Now()}
	if n := cap(*stranger.output()); n > strangerOutput {
		t.Errorf("answers have a buffer of %d octets", n)
	}
	s := newStage(t)
	_, talk := s.play(t, strings.Repeat("CAPA\r\n", 30), false)
	if n := strings.Count(talk.out.String(), "\r\n.\r\n"); n != 30 {
		t.Errorf("%d of 30 commands are answered", n)
	}
	if talk.largest > 2*strangerOutput {
		t.Errorf("%d octets were gathered before they were sent", talk.largest)
	}
	said := fmt.Sprint("AUTH PLAIN\r\n", strings.Repeat("x", 20_000))
	c, _ := s.play(t, said, false)
	if len(c.conn.in) > responseLimit {
		t.Errorf("%d octets are kept of a line", len(c.conn.in))
	}
	if _, talk = s.play(t, strings.Repeat("LIST\r\n", 500), true); talk.largest <= 2*strangerOutput {
		t.Errorf("who is logged in is sent %d octets at a time", talk.largest)
	}
}
