package turnd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/turnd/turn"

	"github.com/prometheus/client_golang/prometheus"
)

// A front is a Server over a real ledger, with what tests look at.
type front struct {
	*Server
	addr   string
	writes atomic.Int64
	ledger *meter.Ledger
	path   string // of the ledger
	log    *logText
	turns  *heldMail
}

// listener shows clients that come from 127.0.0.x, but for 127.0.0.1, as if they came from 192.0.2.x, and
// counts what is written to them.
type listener struct {
	net.Listener
	writes *atomic.Int64
}

type conn struct {
	net.Conn
	from   *net.TCPAddr
	writes *atomic.Int64
}

func (c conn) RemoteAddr() net.Addr { return c.from }

func (c conn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from := *c.RemoteAddr().(*net.TCPAddr)
	if last := from.IP.To4()[3]; last != 1 {
		from.IP = net.IPv4(192, 0, 2, last)
	}
	return conn{c, &from, l.writes}, nil
}

// open starts a server with customers. configure may change its Config.
func open(t testing.TB, configure func(*Config)) *front {
	t.Helper()
	f := &front{log: new(logText), turns: &heldMail{}}
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.path = filepath.Join(t.TempDir(), "ledger.db")
	ledger, err := meter.Open(t.Context(), f.path, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	f.ledger = ledger
	for _, a := range customers() {
		if err := ledger.AddAccount(t.Context(), a, verifier(t, a.Name)); err != nil {
			t.Fatal(err)
		}
	}
	follower := meter.Follow(context.Background(), ledger, log, nil)
	t.Cleanup(follower.Close)
	logins, err := login.New(login.Config{
		Service: "turnd", Hostname: "mx.example", Accounts: follower, Verifiers: ledger, Names: login.AccountNames, Admit: Admit,
		Guard: &login.Guard{
			Now:  func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }, // failures are never forgotten
			Wait: func(context.Context, time.Duration) error { return nil },
		}, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Hostname: "mx.example", Accounts: follower, Logins: logins, Turns: f.turns, Logger: log, Metrics: prometheus.NewRegistry()}
	if configure != nil {
		configure(&cfg)
	}
	if f.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	f.addr = f.listen(t, f.Serve)
	return f
}

// listen serves on a new port and returns its address. The server has ended when the test has.
func (f *front) listen(t testing.TB, serve func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(listener{l, &f.writes}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		f.Shutdown(ctx)
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return l.Addr().String()
}

// customers have names that say what befalls their mail: see heldMail.
func customers() []meter.Account {
	account := func(name string, mode meter.Mode, domains ...string) meter.Account {
		a := meter.Account{Name: name, Mode: mode, Domains: append(domains, name+".example"),
			Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, CatchAll: true, CRAMMD5: mode == meter.ATRN}
		if mode == meter.ETRN || mode == meter.Backup {
			a.Host = "mail." + name + ".example"
			a.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.8/29")}
		}
		return a
	}
	near := account("near", meter.ATRN)
	near.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.8/29")}
	dialled := account("dialled", meter.ATRN)
	dialled.Host = "mail.dialled.example"
	gone := account("gone", meter.ATRN)
	gone.Suspended = true
	shut := account("shut", meter.ETRN)
	shut.Suspended = true
	return []meter.Account{
		account("corp", meter.ATRN, "corp.test", "xn--bcher-kva.example"),
		account("empty", meter.ATRN), account("busy", meter.ATRN), account("stuck", meter.ATRN), account("crowd", meter.ATRN),
		account("away", meter.ATRN), account("late", meter.ATRN),
		account("ended", meter.ATRN), account("paused", meter.ATRN), account("erased", meter.ATRN),
		near, dialled, gone, shut,
		account("able", meter.ETRN, "able.bolt.example"),
		account("bolt", meter.ETRN, "sub.bolt.example", "deep.sub.bolt.example", "bolt.test"),
		account("guest", meter.ETRN, "guest.corp.example"),
		account("idle", meter.ETRN), account("taken", meter.ETRN), account("dark", meter.ETRN), account("mirror", meter.ETRN),
		account("many", meter.ETRN), account("broken", meter.ETRN), account("closing", meter.ETRN), account("swift", meter.ETRN), account("race", meter.ETRN),
		account("spare", meter.Backup), account("dusty", meter.Backup), account("dent", meter.POP3),
	}
}

func password(account string) string { return "open " + account }

// verifiers are made once: each takes some milliseconds, with the race detector some more.
var verifiers sync.Map

func verifier(t testing.TB, account string) *meter.Verifier {
	t.Helper()
	if v, ok := verifiers.Load(account); ok {
		return v.(*meter.Verifier)
	}
	v, err := login.NewVerifier(password(account), true)
	if err != nil {
		t.Fatal(err)
	}
	verifiers.Store(account, v)
	return v
}

// heldMail stands for package turn. What it does with an account is in the account's name.
type heldMail struct {
	mu        sync.Mutex
	asked     []string // what was asked of it
	clients   []turn.Client
	cancelled int
	reversing func() // called when a turn is made ready; nil: nothing
}

func (m *heldMail) note(c turn.Client, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, fmt.Sprintf(format, args...))
	m.clients = append(m.clients, c)
}

var reverseErrors = map[string]error{
	"empty": turn.ErrNothingWaits, "busy": turn.ErrOpen, "stuck": fmt.Errorf("no connection: %w", turn.ErrNotDelivered),
	"crowd": turn.ErrTooMany, "away": meter.ErrUnavailable, "late": turn.ErrClosing,
	"ended": turn.ErrEnded, "paused": turn.ErrSuspended, "erased": turn.ErrDeleted,
}

func (m *heldMail) Reverse(_ context.Context, a *meter.Account, domains []string, c turn.Client) (Reversal, error) {
	m.note(c, "reverse %s %v", a.Name, domains)
	if err := reverseErrors[a.Name]; err != nil {
		return nil, err
	}
	if m.reversing != nil {
		m.reversing()
	}
	return &reversal{mail: m, account: a.Name}, nil
}

var dialErrors = map[string]error{
	"dark": fmt.Errorf("%w: connection refused", turn.ErrUnreachable), "mirror": turn.ErrSelf, "many": turn.ErrTooMany,
	"closing": turn.ErrClosing, "swift": turn.ErrNothingWaits, "race": turn.ErrOpen,
}

func (m *heldMail) Dial(_ context.Context, a *meter.Account, c turn.Client) error {
	m.note(c, "dial %s", a.Name)
	return dialErrors[a.Name]
}

func (m *heldMail) Flush(_ context.Context, a *meter.Account) error {
	m.note(turn.Client{}, "flush %s", a.Name)
	if a.Name == "dusty" {
		return context.DeadlineExceeded
	}
	return nil
}

func (m *heldMail) Asked(ctx context.Context, a *meter.Account, domains []string) (bool, error) {
	w, err := m.Waiting(ctx, a, domains)
	return w.Messages > 0, err
}

// Waiting is as many messages as domains were asked for.
func (m *heldMail) Waiting(_ context.Context, a *meter.Account, domains []string) (meter.Waiting, error) {
	switch a.Name {
	case "idle":
		return meter.Waiting{}, nil
	case "broken":
		return meter.Waiting{}, meter.ErrUnavailable
	}
	if domains == nil {
		return meter.Waiting{Messages: 12}, nil
	}
	return meter.Waiting{Messages: int64(len(domains))}, nil
}

func (m *heldMail) Open(account string) bool { return account == "taken" }

// A reversal greets, and repeats each line that it hears.
type reversal struct {
	mail    *heldMail
	account string
}

func (r *reversal) Run(conn net.Conn, in *bufio.Reader) error {
	defer conn.Close()
	fmt.Fprintf(conn, "220 a turn of %s\r\n", r.account)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "250 %s", line)
		if strings.HasPrefix(line, "QUIT") {
			return nil
		}
	}
}

func (r *reversal) Cancel() {
	r.mail.mu.Lock()
	defer r.mail.mu.Unlock()
	r.mail.cancelled++
}

// logText is a log to look into.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// plainText is an initial response of PLAIN (RFC 4616).
func plainText(account, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + account + "\x00" + password))
}

// A client is one connection.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, addr string) *client { return dialFrom(t, "127.0.0.1", addr) }

func dialFrom(t testing.TB, from, addr string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &client{t: t, conn: c, r: bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads a reply, which must begin with text in one of its lines, and returns it.
func (c *client) expect(text string) string {
	c.t.Helper()
	reply, found := "", false
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("waiting for %q: %q, %v", text, reply, err)
		}
		reply += line
		found = found || strings.HasPrefix(line, text)
		if line[3] != '-' {
			break
		}
	}
	if !found {
		c.t.Fatalf("the server said %q; want %q", reply, text)
	}
	return reply
}

func (c *client) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("the connection is open and says %q", b)
	} else if ne, is := err.(net.Error); is && ne.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

// say sends a command and reads the reply.
func (c *client) say(command, reply string) string {
	c.t.Helper()
	c.send(command + "\r\n")
	return c.expect(reply)
}

// startTLS goes on under TLS.
func (c *client) startTLS() {
	c.t.Helper()
	over := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := over.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = over, bufio.NewReader(over)
}

// login says EHLO and logs in.
func (c *client) login(account string) {
	c.t.Helper()
	c.expect("220")
	c.say("EHLO client.example", "250")
	c.say("AUTH PLAIN "+plainText(account, password(account)), "235")
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not seen: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
