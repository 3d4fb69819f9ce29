package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailbag/cmd/internal/daemon/daemontest"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/meter/login"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/turnd/control"
)

// dialogue is one connection to the front end.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (d dialogue) expect(text string) {
	d.t.Helper()
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("waiting for %q: %v", text, err)
		}
		if line[3] == ' ' {
			if !strings.HasPrefix(line, text) {
				d.t.Fatalf("the server said %q, want %q", line, text)
			}
			return
		}
	}
}

// It starts while the ledger is missing, takes part when the ledger comes, records what its predecessor
// left open, and stops gracefully.
func TestDaemonStartsWithoutALedgerAndTakesPartWhenItComes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := settings.Default()
	s.Hostname = "mx.example"
	s.Database = filepath.Join(dir, "mailbag.db")
	s.TLS = settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
	s.Turn.Listen, s.Turn.ListenTLS, s.Turn.Metrics = []settings.Address{daemontest.Address(t)}, nil, daemontest.Address(t)
	s.Turn.Sockets = filepath.Join(dir, "run", "turn")
	s.Turn.Control = settings.Address{Network: "unix", Address: filepath.Join(dir, "turnd.sock")}
	d := newService(daemontest.Settings(s), postfix.Instance{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	stop, ended := daemontest.Start(t, d)
	if !strings.HasPrefix(d.Status(), "0 turns open, no more are opened: ") {
		t.Errorf("without a ledger the status is %q", d.Status())
	}
	if info, err := os.Stat(s.Turn.Sockets); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory of the turns' sockets is %v, %v", info, err)
	}
	controls := control.NewClient(s.Turn.Control.Address)
	if err := controls.Open(t.Context(), "bolt", ""); !errors.Is(err, meter.ErrUnavailable) {
		t.Errorf("without a ledger a turn is opened with %v", err)
	}
	conn, err := net.Dial("tcp", s.Turn.Listen[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	client := dialogue{t, conn, bufio.NewReader(conn)}
	client.expect("220 mx.example ")
	fmt.Fprint(conn, "EHLO client.example\r\nETRN corp.example\r\n")
	client.expect("250")
	client.expect("458 4.3.0 ")

	ledger, err := meter.Open(t.Context(), s.Database, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	v, err := login.NewVerifier("open sesame", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.AddAccount(t.Context(), meter.Account{Name: "corp", Mode: meter.ATRN, Domains: []string{"corp.example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, v); err != nil {
		t.Fatal(err)
	}
	if err := postfixtest.Wait("the account to be in force", func() bool { return strings.HasSuffix(d.Status(), "serving 1 accounts") }); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "AUTH PLAIN AGNvcnAAb3BlbiBzZXNhbWU=\r\n")
	client.expect("235")
	fmt.Fprint(conn, "ATRN\r\n")
	client.expect("453 ")
	if list, err := controls.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("the turns are %v, %v", list, err)
	}
	if err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
	page, err := http.Get("http://" + s.Turn.Metrics.Address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	text, err := io.ReadAll(page.Body)
	for _, metric := range []string{"mailbag_accounts 1", "mailbag_ledger_available 1", `mailbag_odmr_replies_total{code="453",command="ATRN"} 1`, `mailbag_logins_total{mechanism="PLAIN",result="ok"} 1`} {
		if err != nil || !strings.Contains(string(text), metric+"\n") {
			t.Errorf("the metrics lack %q: %v", metric, err)
		}
	}

	stop()
	client.expect("421 4.3.2 ")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Turn.Control.Address); !os.IsNotExist(err) {
		t.Errorf("the control socket is left behind: %v", err)
	}
}

func TestTurnsOfAnEarlierRunAreRecordedAsInterrupted(t *testing.T) {
	t.Parallel()
	ledger, err := meter.Open(t.Context(), filepath.Join(t.TempDir(), "mailbag.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	if err := ledger.AddAccount(t.Context(), meter.Account{Name: "corp", Mode: meter.ATRN, Domains: []string{"corp.example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil); err != nil {
		t.Fatal(err)
	}
	all, err := ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.BeginTurn(t.Context(), "token", all.Account("corp").ID, meter.Turn{Kind: meter.TurnATRN, Began: time.Now()}); err != nil {
		t.Fatal(err)
	}
	newService(settings.Default, postfix.Instance{}, slog.New(slog.NewTextHandler(t.Output(), nil))).interruptTurns(ledger)
	turns, err := ledger.Turns(t.Context(), "corp", 10)
	if err != nil || len(turns) != 1 || turns[0].Outcome != "interrupted" {
		t.Errorf("the turns are %+v, %v", turns, err)
	}
}

// Anybody can lock a directory that anybody can open.
func TestAStrangersLockKeepsNoTurnFromOpeningAndClosing(t *testing.T) {
	t.Parallel()
	d := gateDirectory(filepath.Join(t.TempDir(), "turn"))
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	stranger, err := os.Open(string(d))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := syscall.Flock(int(stranger.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	l, err := d.open(t.Context(), "corp", "postfix", slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(string(d)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDirectoryInWhichOthersMayWriteIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o775, 0o757, 0o777} {
		d := gateDirectory(t.TempDir())
		if err := os.Chmod(string(d), mode); err != nil {
			t.Fatal(err)
		}
		if err := d.prepare(); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := gateDirectory("/dev/null/turn").prepare(); err == nil || !strings.Contains(err.Error(), "make it") {
		t.Errorf("of a directory that cannot be made the error is %v", err)
	}
}

func TestSocketsThatWereLeftBehindAreRemoved(t *testing.T) {
	t.Parallel()
	d := gateDirectory(filepath.Join(t.TempDir(), "turn"))
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	l, err := d.open(t.Context(), "corp", "postfix", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A process that was killed in the moment in which it opened one.
	unready, err := net.Listen("unix", filepath.Join(string(d), "acme.sock~"))
	if err != nil {
		t.Fatal(err)
	}
	defer unready.Close()
	precious := filepath.Join(string(d), "precious.sock")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.clean(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"corp.sock", "acme.sock~"} {
		if _, err := os.Lstat(filepath.Join(string(d), name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if _, err := os.Lstat(precious); err != nil {
		t.Errorf("what is no socket is gone: %v", err)
	}
}

func TestOwnMailSystemIsKnownByAddressAndPort(t *testing.T) {
	t.Parallel()
	m := &neighbour{log: slog.New(slog.DiscardHandler), own: []uint16{366}, read: time.Now().Add(time.Hour),
		identity: mta.Identity{Ports: []uint16{25, 10025}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	for at, want := range map[string]bool{
		"127.0.0.1:25": true, "127.0.0.9:10025": true, "[::1]:25": true, "[::ffff:127.0.0.1]:25": true, "0.0.0.0:25": true,
		"127.0.0.1:366": true, "192.0.2.1:25": true,
		"127.0.0.1:2525": false, "203.0.113.9:25": false, "192.0.2.1:2525": false,
	} {
		if got := m.isSelf(netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s is ourselves: %t", at, got)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if addr := netip.MustParsePrefix(a.String()).Addr(); !m.isSelf(netip.AddrPortFrom(addr, 25)) {
			t.Errorf("%s, which an interface has, is not ourselves", addr)
		}
	}
}

func TestReleaseIsBySetting(t *testing.T) {
	t.Parallel()
	m := &neighbour{mta: postfix.Instance{ConfigDir: "/etc/other"}}
	for setting, want := range map[string]string{settings.ByMTA: "{/etc/other}", "exim -M {id}": "{[exim -M {id}]}"} {
		if r, err := m.releaser(setting); err != nil || fmt.Sprint(r) != want {
			t.Errorf("%s releases by %v, %v", setting, r, err)
		}
	}
}
