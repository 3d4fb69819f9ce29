package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
	"mailbag/turnd/turn"
)

// openTurns stands for package turn.
type openTurns struct {
	dial func(ctx context.Context, a *meter.Account, c turn.Client) error
	list []turn.Status
}

func (o *openTurns) Dial(ctx context.Context, a *meter.Account, c turn.Client) error {
	return o.dial(ctx, a, c)
}
func (o *openTurns) Open(account string) bool { return account == "corp" }
func (o *openTurns) List() []turn.Status      { return o.list }
func (o *openTurns) End(account string) bool  { return account == "corp" }

// snapshot is a directory that does not change.
type snapshot struct{ d *meter.Directory }

func (s snapshot) Directory() *meter.Directory { return s.d }

// customers are one account of each kind.
func customers(t *testing.T) snapshot {
	t.Helper()
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	for name, mode := range map[string]meter.Mode{"bolt": meter.ETRN, "gone": meter.ETRN, "corp": meter.ATRN, "both": meter.ATRN, "spare": meter.Backup, "dent": meter.POP3} {
		a := meter.Account{Name: name, Mode: mode, Domains: []string{name + ".example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, Suspended: name == "gone"}
		if mode == meter.ETRN || name == "both" {
			a.Host, a.Networks = "mail.example", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if err := ledger.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	d, err := ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot{d}
}

// serve returns a client of a server that ends with the test, and the server's socket.
func serve(t *testing.T, a Accounts, turns Turns) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "turnd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, New(a, turns, stuckMTA{}, nil), l), path
}

func start(t *testing.T, s *Server, l net.Listener) *Client {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	return NewClient(l.Addr().String())
}

func TestTurnIsOpenedForAnAccountThatHasAHost(t *testing.T) {
	t.Parallel()
	var asked []string
	c, _ := serve(t, customers(t), &openTurns{dial: func(_ context.Context, a *meter.Account, who turn.Client) error {
		asked = append(asked, a.Name+" for "+who.Addr)
		return nil
	}})
	for _, test := range []struct {
		account, client string
		want            error
	}{
		{"bolt", "192.0.2.7", nil},
		{"bolt", "::ffff:192.0.2.8", nil},
		{"both", "", nil},
		{"gone", "192.0.2.7", ErrSuspended},
		{"corp", "", ErrNotDialled},
		{"spare", "", ErrNotDialled},
		{"dent", "", ErrNotDialled},
		{"nobody", "", meter.ErrNoAccount},
		{"../turns", "", meter.ErrNoAccount},
		{"bolt", "joe", errRequest},
	} {
		if err := c.Open(t.Context(), test.account, test.client); !errors.Is(err, test.want) {
			t.Errorf("%s for %q: %v, want %v", test.account, test.client, err, test.want)
		}
	}
	if diff := cmp.Diff([]string{"bolt for 192.0.2.7", "bolt for 192.0.2.8", "both for "}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsKeepTheirMeaningAndTheirText(t *testing.T) {
	t.Parallel()
	for _, known := range refusals {
		c, _ := serve(t, customers(t), &openTurns{dial: func(context.Context, *meter.Account, turn.Client) error {
			return fmt.Errorf("mail.example: %w: so it is", known.err)
		}})
		err := c.Open(t.Context(), "bolt", "")
		if !errors.Is(err, known.err) || err.Error() != "mail.example: "+known.err.Error()+": so it is" {
			t.Errorf("%v arrives as %v", known.err, err)
		}
	}
	c, _ := serve(t, customers(t), &openTurns{dial: func(context.Context, *meter.Account, turn.Client) error { return errors.New("nobody knows") }})
	if err := c.Open(t.Context(), "bolt", ""); err == nil || err.Error() != "nobody knows" {
		t.Errorf("an error without a name arrives as %v", err)
	}
}

func TestWithoutALedgerNoTurnIsOpened(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, snapshot{}, &openTurns{})
	if err := c.Open(t.Context(), "bolt", ""); !errors.Is(err, meter.ErrUnavailable) {
		t.Errorf("the error is %v", err)
	}
}

func TestTurnsAreListedAndEnded(t *testing.T) {
	t.Parallel()
	want := []turn.Status{
		{Account: "corp", Kind: meter.TurnATRN, Client: "192.0.2.7", TLS: "TLS 1.3", Peer: "192.0.2.7:4711", Began: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Messages: 12, Bytes: 34567},
		{Account: "bolt", Kind: meter.TurnETRN},
	}
	turns := &openTurns{list: want}
	c, _ := serve(t, customers(t), turns)
	got, err := c.List(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for account, want := range map[string]bool{"corp": true, "bolt": false} {
		if open, err := c.IsOpen(t.Context(), account); err != nil || open != want {
			t.Errorf("%s is open: %t, %v", account, open, err)
		}
	}
	if err := c.End(t.Context(), "corp"); err != nil {
		t.Error(err)
	}
	if err := c.End(t.Context(), "bolt"); !errors.Is(err, ErrNoTurn) {
		t.Errorf("a turn that is not there ends with %v", err)
	}
	turns.list = nil
	if got, err := c.List(t.Context()); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no turns are listed as %#v, %v", got, err)
	}
}

// stuckMTA cannot be had.
type stuckMTA struct{}

func (stuckMTA) Try(context.Context) error { return errors.New("postqueue: fatal: Permission denied") }

func TestWhatKeepsTheDaemonFromItsMTAIsSaid(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, customers(t), &openTurns{})
	if err := c.TryMTA(t.Context()); !errors.Is(err, ErrMTA) || !strings.HasSuffix(err.Error(), "postqueue: fatal: Permission denied") {
		t.Errorf("the error is %v", err)
	}
}

func TestNobodyOnTheSocketIsErrDown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "turnd.sock")
	err := NewClient(path).Open(t.Context(), "bolt", "")
	if !errors.Is(err, ErrDown) || !strings.Contains(err.Error(), "unix:"+path) {
		t.Errorf("the error is %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.NotFoundHandler()}
	go other.Serve(l)
	defer other.Close()
	if err := NewClient(path).Open(t.Context(), "bolt", ""); !errors.Is(err, ErrDown) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("of another program the error is %v", err)
	}
}

func TestWhoDoesNotWaitForATurnGetsItsOwnError(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, _ := serve(t, customers(t), &openTurns{dial: func(ctx context.Context, _ *meter.Account, _ turn.Client) error {
		cancel()
		<-ctx.Done()
		close(gone)
		return ctx.Err()
	}})
	if err := c.Open(ctx, "bolt", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	<-gone
}

func TestOpeningMayTakeLongerThanAskingForIt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "turnd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(customers(t), &openTurns{dial: func(ctx context.Context, _ *meter.Account, _ turn.Client) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(3 * time.Second):
			return nil
		}
	}}, nil, nil)
	s.http.ReadTimeout = 2 * time.Second
	if err := start(t, s, l).Open(t.Context(), "bolt", ""); err != nil {
		t.Error(err)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	_, path := serve(t, customers(t), &openTurns{dial: func(context.Context, *meter.Account, turn.Client) error { return nil }})
	for name, test := range map[string]struct {
		request, reply string
	}{
		"header": {"GET /turns HTTP/1.1\r\nHost: turnd\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n", "HTTP/1.1 431 "},
		"method": {"PATCH /turns HTTP/1.1\r\nHost: turnd\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 "},
		"path":   {"GET /else HTTP/1.1\r\nHost: turnd\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 "},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		go conn.Write([]byte(test.request))
		reply := make([]byte, len(test.reply))
		if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != test.reply {
			t.Errorf("%s: %q, %v; want %q", name, reply, err, test.reply)
		}
	}
}
