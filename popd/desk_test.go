package popd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/meter/login"
)

// patience is for what has to come, sooner or later.
const patience = time.Minute

// A desk is a server with the customers of the tests.
type desk struct {
	*Server
	t      testing.TB
	ledger *meter.Ledger
	store  *Store
	pop3   string // address
	lmtp   string // socket
}

// now is the ledger's view, always as new as it is.
type now struct{ *meter.Ledger }

func (n now) Fresh(ctx context.Context) (*meter.Directory, error) { return n.Load(ctx) }

func (n now) Directory() *meter.Directory {
	d, err := n.Load(context.Background())
	if err != nil {
		return nil
	}
	return d
}

// openDesk starts a server. All log-ins have one password.
func openDesk(t testing.TB, change func(*Config)) *desk {
	t.Helper()
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	d := &desk{t: t, ledger: ledger, store: NewStore(filepath.Join(t.TempDir(), "maildirs"), time.Now)}
	d.account(meter.Account{Name: "dent", Domains: []string{"dent.example"}, CatchAll: true}, "arthur@dent.example", "zaphod@dent.example")
	d.account(meter.Account{Name: "solo", Domains: []string{"solo.example"}}, "han@solo.example")
	d.account(meter.Account{Name: "once", Domains: []string{"once.example"}, CatchAll: true, Copies: meter.SingleCopy})
	d.account(meter.Account{Name: "tiny", Domains: []string{"tiny.example"}, CatchAll: true, Quota: 1000})
	cfg := Config{
		Accounts: now{ledger},
		Sessions: ledger,
		Store:    d.store,
		Hostname: "mx.example",
	}
	cfg.Logins, err = login.New(login.Config{Service: "popd", Accounts: now{ledger}, Verifiers: ledger, Names: login.MailboxNames, Modes: []meter.Mode{meter.POP3}, Admit: Admit,
		Guard: &login.Guard{Wait: func(context.Context, time.Duration) error { return nil }}})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&cfg)
	}
	if d.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	d.pop3 = d.serve("tcp", "127.0.0.1:0", d.ServePOP3)
	// Not t.TempDir, whose path is too long for a socket.
	dir, err := os.MkdirTemp("", "mailbag-popd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d.lmtp = d.serve("unix", filepath.Join(dir, "lmtp"), d.ServeDeliveries)
	return d
}

// serve runs one of the Serve methods until the test ends.
func (d *desk) serve(network, address string, serve func(net.Listener) error) string {
	d.t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		d.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := serve(l); err != nil {
			d.t.Errorf("serving %s: %v", address, err)
		}
	})
	d.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		d.Shutdown(ctx) // the second time it does nothing
		running.Wait()
	})
	return l.Addr().String()
}

var verifier = func() *meter.Verifier {
	v, err := login.NewVerifier("secret word", true)
	if err != nil {
		panic(err)
	}
	return v
}()

// account adds a pop3 account whose log-ins all have the password "secret word".
func (d *desk) account(a meter.Account, mailboxes ...string) {
	d.t.Helper()
	a.Mode, a.Recipients = meter.POP3, meter.AnyRecipient
	if a.Copies == "" {
		a.Copies = meter.PerRecipient
	}
	d.must(d.ledger.AddAccount(d.t.Context(), a, verifier))
	for _, m := range mailboxes {
		address, err := meter.ParseAddress(m)
		d.must(err)
		d.must(d.ledger.AddMailbox(d.t.Context(), a.Name, address, verifier))
	}
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// deliver sends a message by LMTP and returns the replies to its recipients: at RCPT where they are refused
// there, else at the end.
func (d *desk) deliver(from, content string, to ...string) []string {
	d.t.Helper()
	conn, err := net.Dial("unix", d.lmtp)
	d.must(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := textproto.NewConn(conn)
	say := func(format string, args ...any) (int, string) {
		d.t.Helper()
		d.must(c.PrintfLine(format, args...))
		code, text, err := c.ReadResponse(0)
		if code == 0 {
			d.must(err)
		}
		return code, text
	}
	if code, _, _ := c.ReadResponse(0); code != 220 {
		d.t.Fatalf("greeted with %d", code)
	}
	say("LHLO client.example")
	if code, text := say("MAIL FROM:<%s> SIZE=%d", from, len(content)); code != 250 {
		return []string{fmt.Sprint(code, " ", text)}
	}
	replies := make([]string, len(to))
	var taken []int
	for i, address := range to {
		if code, text := say("RCPT TO:<%s>", address); code == 250 {
			taken = append(taken, i)
		} else {
			replies[i] = fmt.Sprint(code, " ", text)
		}
	}
	if len(taken) == 0 {
		return replies
	}
	if code, text := say("DATA"); code != 354 {
		d.t.Fatalf("DATA: %d %s", code, text)
	}
	w := c.DotWriter()
	fmt.Fprint(w, strings.ReplaceAll(content, "\r\n", "\n")) // which the writer makes CRLF again
	d.must(w.Close())
	for _, i := range taken {
		code, text, err := c.ReadResponse(0)
		if code == 0 {
			d.must(err)
		}
		replies[i] = fmt.Sprint(code, " ", text)
	}
	return replies
}

// put delivers a message that has to be taken.
func (d *desk) put(content string, to ...string) {
	d.t.Helper()
	for _, reply := range d.deliver("x@elsewhere.example", content, to...) {
		if !strings.HasPrefix(reply, "250") {
			d.t.Fatal(reply)
		}
	}
}

// A client is one POP3 client.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// dial connects and reads the greeting.
func (d *desk) dial() *client {
	d.t.Helper()
	conn, err := net.Dial("tcp", d.pop3)
	d.must(err)
	d.t.Cleanup(func() { conn.Close() })
	c := d.talk(conn)
	c.want("+OK ")
	return c
}

func (d *desk) talk(conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(patience))
	return &client{conn, d.t, bufio.NewReader(conn)}
}

// enter logs in.
func (d *desk) enter(name string) *client {
	d.t.Helper()
	c := d.dial()
	c.say("USER "+name, "+OK")
	c.say("PASS secret word", "+OK")
	return c
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("reading a line: %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (c *client) want(prefix string) string {
	c.t.Helper()
	line := c.line()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("the server said %q, want %q", line, prefix)
	}
	return line
}

// say sends a command and reads a line that has to begin so.
func (c *client) say(command, prefix string) string {
	c.t.Helper()
	fmt.Fprint(c, command, "\r\n")
	return c.want(prefix)
}

// lines reads to the line with a dot, and takes the transparency away.
func (c *client) lines() []string {
	c.t.Helper()
	var all []string
	for {
		line := c.line()
		if line == "." {
			return all
		}
		all = append(all, strings.TrimPrefix(line, "."))
	}
}

// fetch says RETR and returns the message.
func (c *client) fetch(n int) string {
	c.t.Helper()
	c.say(fmt.Sprint("RETR ", n), "+OK")
	text := ""
	for _, line := range c.lines() {
		text += line + "\r\n"
	}
	return text
}

// closed waits for the server's end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if line, err := c.r.ReadString('\n'); err == nil {
		c.t.Fatalf("the server did not close the connection but said %q", line)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server did not close the connection")
	}
}

// eventually waits for what somebody else brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", patience, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stored is how many messages a mailbox has.
func (d *desk) stored(account, mailbox string) int {
	d.t.Helper()
	box := d.store.Maildir(account, mailbox)
	if there, err := box.Exists(); err != nil || !there {
		d.must(err)
		return 0
	}
	l, err := box.List()
	d.must(err)
	return len(l.Messages)
}
