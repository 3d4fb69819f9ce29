package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/cmd/internal/daemon/daemontest"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/policy/routes"
)

// It starts while the ledger is missing, defers nothing of others, takes part when the ledger comes,
// and stops gracefully.
func TestDaemonStartsWithoutALedgerAndTakesPartWhenItComes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	at := func(name string) settings.Address {
		return settings.Address{Network: "unix", Address: filepath.Join(dir, name)}
	}
	s := settings.Default()
	s.Database = filepath.Join(dir, "mailbag.db")
	s.Policy = settings.Policy{Listen: at("policy"), Milter: at("milter"), Tables: filepath.Join(dir, "tables"), Metrics: settings.Address{Network: "tcp4", Address: "127.0.0.1:0"}}
	d := newService(daemontest.Settings(s), postfix.Instance{}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	stop, ended := daemontest.Start(t, d)
	if !strings.Contains(d.Status(), "deferred") {
		t.Errorf("without a ledger the status is %q", d.Status())
	}

	ledger, err := meter.Open(t.Context(), s.Database, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	if err := ledger.AddAccount(t.Context(), meter.Account{Name: "acme", Mode: meter.Backup, Domains: []string{"acme.example"}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the domain's way", func() bool {
		way, _, _ := routes.Lookup(filepath.Join(s.Policy.Tables, routes.Routes), "acme.example")
		return way == "relay:acme.example"
	})
	if err := d.Health(t.Context()); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("unix", at("policy").Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1.2.3\nrecipient=joe@other.example\n\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "action=DUNNO\n" {
		t.Errorf("the answer is %q, %v", line, err)
	}

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, name := range []string{"policy", "milter"} {
		if _, err := os.Lstat(at(name).Address); !os.IsNotExist(err) {
			t.Errorf("the socket %s is left behind: %v", name, err)
		}
	}
}
