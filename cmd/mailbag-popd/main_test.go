package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/daemon/daemontest"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/meter/login"
	postfixtest "mailbag/testdata/postfix"
)

// dialogue is one connection.
type dialogue struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, at settings.Address) dialogue {
	t.Helper()
	conn, err := net.Dial(strings.TrimRight(at.Network, "4"), at.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return dialogue{t, conn, bufio.NewReader(conn)}
}

func (d dialogue) say(text string) { fmt.Fprint(d.conn, text, "\r\n") }

// expect reads up to a line that begins so.
func (d dialogue) expect(text string) {
	d.t.Helper()
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.HasPrefix(line, text) {
			return
		}
	}
}

// It starts while the ledger is missing, takes part when the ledger comes, delivers, hands out, and stops gracefully.
func TestDaemonStartsWithoutALedgerAndTakesPartWhenItComes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := settings.Default()
	s.Hostname = "mx.example"
	s.Database = filepath.Join(dir, "mailbag.db")
	s.TLS = settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
	s.POP.Listen, s.POP.ListenTLS, s.POP.Metrics = []settings.Address{daemontest.Address(t)}, []settings.Address{daemontest.Address(t)}, daemontest.Address(t)
	s.POP.Deliver = settings.Address{Network: "unix", Address: filepath.Join(dir, "deliver.sock")}
	s.POP.Maildirs = filepath.Join(dir, "maildirs")
	d := newService(daemontest.Settings(s), postfix.Instance{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	stop, ended := daemontest.Start(t, d)
	if !strings.HasPrefix(d.Status(), "nobody new can log in: ") {
		t.Errorf("without a ledger the status is %q", d.Status())
	}
	mta := dial(t, s.POP.Deliver)
	mta.expect("220 mx.example ")
	mta.say("LHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@dent.example>")
	mta.expect("451 4.3.0 ")
	client := dial(t, s.POP.Listen[0])
	client.expect("+OK mx.example ")
	client.say("USER dent\r\nPASS open sesame")
	client.expect("-ERR [SYS/TEMP]")
	// Without a certificate nobody gets in by TLS.
	if _, err := dial(t, s.POP.ListenTLS[0]).r.ReadByte(); err == nil {
		t.Error("TLS begins without a certificate")
	}

	ledger, err := meter.Open(t.Context(), s.Database, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	v, err := login.NewVerifier("open sesame", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.AddAccount(t.Context(), meter.Account{Name: "dent", Mode: meter.POP3, CatchAll: true, Domains: []string{"dent.example"},
		Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, v); err != nil {
		t.Fatal(err)
	}
	if err := postfixtest.Wait("the account to be in force", func() bool { return d.Status() == "serving 1 accounts" }); err != nil {
		t.Fatal(err)
	}
	mta.say("RCPT TO:<a@dent.example>\r\nDATA")
	mta.expect("354 ")
	mta.say("Subject: x\r\n\r\nbody\r\n.")
	mta.expect("250 2.1.5 ")
	client.say("USER dent\r\nPASS open sesame\r\nSTAT")
	client.expect("+OK 1 messages")
	client.expect("+OK 1 ")
	if err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
	// How long a delivery took is observed when it was answered.
	var text []byte
	lacks := func(metric string) bool { return !strings.Contains(string(text), metric+"\n") }
	metrics := []string{"mailbag_accounts 1", `mailbag_pop_deliveries_total{code="250"} 1`, `mailbag_pop_connections{socket="pop3"} 1`,
		`mailbag_logins_total{mechanism="USER",result="ok"} 1`,
		`mailbag_pop_commands_total{command="PASS",result="refused"} 1`, `mailbag_pop_commands_total{command="PASS",result="ok"} 1`,
		"mailbag_pop_delivery_seconds_count 1"}
	if err := postfixtest.Wait(fmt.Sprintf("all of %q in the metrics", metrics), func() bool {
		page, err := http.Get("http://" + s.POP.Metrics.Address + "/metrics")
		if err != nil {
			return false
		}
		defer page.Body.Close()
		text, err = io.ReadAll(page.Body)
		return err == nil && !slices.ContainsFunc(metrics, lacks)
	}); err != nil {
		t.Errorf("%v:\n%s", err, text)
	}
	stop()
	mta.expect("421 ")
	client.expect("-ERR [SYS/TEMP]")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if list, err := ledger.PopSessions(t.Context(), "dent", 10); err != nil || len(list) != 1 || list[0].Outcome != "the server stopped" {
		t.Errorf("the sessions are %+v, %v", list, err)
	}
}
