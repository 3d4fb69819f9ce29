package policy

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"

	"github.com/prometheus/client_golang/prometheus"
)

// started is when the policies of the tests begin; their clock goes on from a minute later, by a
// microsecond each time that somebody looks.
var started = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A desk is a Policy over a real ledger, with what tests look at.
type desk struct {
	*Policy
	ledger   *meter.Ledger
	follower *meter.Follower
	faults   *faults
	log      *logText
	metrics  *prometheus.Registry
	dir      string
}

// faults stand between a Policy and its ledger.
type faults struct {
	*meter.Follower
	recorder *meter.Recorder
	ledger   *meter.Ledger

	unread      atomic.Bool // the ledger was never read
	unavailable atomic.Bool // it cannot be written, or read by a query
	behind      atomic.Bool // what is near knows nothing of what was counted
	usageAsked  atomic.Int64
	waitingRead atomic.Int64
}

func (f *faults) Directory() *meter.Directory {
	if f.unread.Load() {
		return nil
	}
	return f.Follower.Directory()
}

func (f *faults) Available() error {
	if f.unavailable.Load() {
		return meter.ErrUnavailable
	}
	return f.Follower.Available()
}

func (f *faults) Record(m meter.Message, answer func() error) error {
	if f.unavailable.Load() {
		return meter.ErrUnavailable
	}
	return f.recorder.Record(m, answer)
}

func (f *faults) Unheard(instance string) { f.recorder.Unheard(instance) }

func (f *faults) CountedUnder(ctx context.Context, queueIDs []string, since time.Time) ([]int64, error) {
	if f.unavailable.Load() {
		return nil, meter.ErrUnavailable
	}
	return f.recorder.CountedUnder(ctx, queueIDs, since)
}

func (f *faults) Accepts(ctx context.Context, directory *meter.Directory, a *meter.Account, addr meter.Address) (bool, error) {
	if f.unavailable.Load() {
		return false, meter.ErrUnavailable
	}
	return f.ledger.Accepts(ctx, directory, a, addr)
}

func (f *faults) Usage(ctx context.Context, account int64, month meter.Month) (meter.Usage, error) {
	f.usageAsked.Add(1)
	if f.unavailable.Load() {
		return meter.Usage{}, meter.ErrUnavailable
	}
	return f.ledger.Usage(ctx, account, month)
}

func (f *faults) NearUsage(ctx context.Context, account int64, month meter.Month) (meter.Usage, error) {
	f.usageAsked.Add(1)
	if f.unavailable.Load() {
		return meter.Usage{}, meter.ErrUnavailable
	}
	if f.behind.Load() {
		return meter.Usage{}, nil
	}
	return f.ledger.NearUsage(ctx, account, month)
}

func (f *faults) Waiting(ctx context.Context, account int64, domains ...string) (meter.Waiting, error) {
	f.waitingRead.Add(1)
	if f.unavailable.Load() {
		return meter.Waiting{}, meter.ErrUnavailable
	}
	return f.ledger.Waiting(ctx, account, domains...)
}

func (f *faults) Queued(ctx context.Context, account int64) (meter.Waiting, error) {
	f.waitingRead.Add(1)
	return f.ledger.Queued(ctx, account)
}

func (f *faults) Called(ctx context.Context, account int64) error {
	return f.ledger.Called(ctx, account)
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

// account fills in what the CLI would.
func account(name string, mode meter.Mode, domains ...string) meter.Account {
	return meter.Account{
		Name: name, Mode: mode, Domains: domains,
		Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, CatchAll: true,
	}
}

// customers are the accounts of most tests.
func customers() []meter.Account {
	acme := account("acme", meter.ETRN, "acme.example", "xn--bcher-kva.example")
	acme.Host = "mail.acme.example"
	acme.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	box := account("box", meter.POP3, "box.example")
	listed := account("listed", meter.ATRN, "listed.example")
	listed.Recipients = meter.ListedRecipient
	spare := account("spare", meter.Backup, "spare.example")
	spare.Recipients = meter.VerifiedRecipient
	spare.Host = "192.0.2.7:2525"
	spare.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	reserve := account("reserve", meter.Backup, "reserve.example")
	reserve.Recipients = meter.VerifiedRecipient
	gone := account("gone", meter.ETRN, "gone.example")
	gone.Suspended = true
	gone.Host = "mail.gone.example"
	gone.Networks = acme.Networks
	return []meter.Account{acme, box, listed, spare, reserve, gone}
}

// openDesk returns a Policy over a new ledger with the accounts. configure may change its Config.
func openDesk(t testing.TB, accounts []meter.Account, configure func(*Config)) *desk {
	t.Helper()
	d := &desk{dir: t.TempDir(), log: new(logText), metrics: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(d.log, nil))
	ledger, err := meter.Open(t.Context(), filepath.Join(d.dir, "ledger.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	for _, a := range accounts {
		if err := ledger.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range accounts {
		if a.Recipients == meter.ListedRecipient {
			addr := meter.Address{Local: "known", Domain: a.Domains[0]}
			if err := ledger.AddRecipients(t.Context(), a.Name, addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.ledger = ledger
	d.follower = meter.Follow(context.Background(), ledger, log, nil)
	t.Cleanup(d.follower.Close)
	recorder := meter.NewRecorder(ledger, nil)
	t.Cleanup(recorder.Close)
	d.faults = &faults{Follower: d.follower, recorder: recorder, ledger: ledger}

	var looks atomic.Int64
	cfg := Config{
		Accounts: d.faults, Recorder: d.faults, Lists: d.faults, Usage: d.faults, Waiting: d.faults,
		Now: func() time.Time {
			look := looks.Add(1)
			if look == 1 {
				return started
			}
			return started.Add(time.Minute + time.Duration(look)*time.Microsecond)
		},
		Logger: log, Metrics: d.metrics,
	}
	if configure != nil {
		configure(&cfg)
	}
	if d.Policy, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return d
}

// listen serves on a new socket and returns its path. The server has ended when the test has.
func (d *desk) listen(t testing.TB, name string, serve func(net.Listener) error) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		d.Shutdown(ctx)
		if err := <-ended; err != nil {
			t.Errorf("serving %s: %v", name, err)
		}
	})
	return path
}

// used returns what an account has used in the current month.
func (d *desk) used(t testing.TB, name string) meter.Usage {
	t.Helper()
	u, err := d.ledger.Usage(t.Context(), d.follower.Directory().Account(name).ID, meter.MonthOf(d.now(), time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// wantDomains has an account use so much in its domains in the current month.
func (d *desk) wantDomains(t testing.TB, name string, want ...meter.DomainUsage) {
	t.Helper()
	id := d.follower.Directory().Account(name).ID
	used, err := d.ledger.DomainUsage(t.Context(), meter.MonthOf(d.now(), time.UTC), id)
	if err != nil || !slices.Equal(used[id], want) {
		t.Errorf("the domains of %s used %+v, %v; want %+v", name, used[id], err, want)
	}
}

// A client is a policy client.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &client{Conn: c, t: t, r: bufio.NewReader(c)}
}

// requestText writes a request with name=value pairs.
func requestText(attributes ...string) string {
	return "request=smtpd_access_policy\n" + strings.Join(attributes, "\n") + "\n\n"
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// action reads an answer.
func (c *client) action() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	if blank, err := c.r.ReadString('\n'); err != nil || blank != "\n" {
		c.t.Fatalf("the answer %q is not followed by an empty line: %q, %v", line, blank, err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(line, "action="), "\n")
}

func (c *client) ask(attributes ...string) string {
	c.t.Helper()
	c.send(requestText(attributes...))
	return c.action()
}

// closed waits until the server has closed the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("the connection is open and says %q", b)
	} else if ne, is := err.(net.Error); is && ne.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

// metric is the sum of all samples of a metric.
func metric(t testing.TB, d *desk, name string) (sum float64) {
	t.Helper()
	families, err := d.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not seen: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
