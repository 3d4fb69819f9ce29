package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	rqlitetest "mailbag/testdata/rqlite"
)

// TestLedgerMigratesToNodesAndBack is the way of an operator, with credentials.
func TestLedgerMigratesToNodesAndBack(t *testing.T) {
	t.Parallel()
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	w := newWorkplace(t, storyMail{})
	users := `[{"username": "mailbag", "password": "secret", "perms": ["all"]}, {"username": "*", "perms": ["ready", "join"]}]`
	for name, text := range map[string]string{"users.json": users, "credentials": "mailbag:secret\n"} {
		if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := rqlitetest.Start(t.Context(), w.path("nodes"), 1, rqlitetest.Options{Args: []string{"-auth", w.path("users.json")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes.Stop)
	settle := func(database, credentials string) {
		t.Helper()
		text := fmt.Sprintf("database = %q\n[cluster]\nstate = %q\ncredentials = %q\n[policy]\ntables = %q\n[pop]\nmaildirs = %q\n",
			database, w.dir, credentials, w.path("tables"), w.path("maildirs"))
		if err := os.WriteFile(w.path("mailbag.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	list := w.must("account", "list")

	settle(w.path("mailbag.db"), "")
	if status, _, errs := w.run("database", "migrate", "--to", nodes.Address(0)); status != failed || !strings.Contains(errs, "cluster.credentials names none") {
		t.Errorf("without credentials it ends with status %d and says %s", status, errs)
	}
	settle(w.path("mailbag.db"), w.path("credentials"))
	if out := w.must("database", "migrate", "--to", nodes.Address(0), "--json"); !strings.Contains(out, `"table": "account"`) {
		t.Errorf("it says %s", out)
	}
	if status, _, errs := w.run("account", "suspend", "acme"); status != failed || !strings.Contains(errs, "was moved") || strings.Contains(errs, "disk") {
		t.Errorf("a change of the old ledger ends with status %d and says %s", status, errs)
	}
	if _, out, _ := w.run("doctor", "--within", "1m"); !strings.Contains(out, "migrate --stay") || strings.Contains(out, "restore") {
		t.Errorf("of the old ledger the doctor says\n%s", out)
	}
	settle(nodes.Address(0), w.path("credentials"))
	if got := w.must("account", "list"); got != list {
		t.Errorf("the accounts are\n%s and were\n%s", got, list)
	}
	w.must("account", "suspend", "acme")
	if found := newPatient(t, w).examineNodes(t.Context()); len(found) != 1 || found[0].Result != well || found[0].Text != "all 1 have what the leader has, and enforce foreign keys" {
		t.Errorf("the doctor finds %+v", found)
	}
	if err := os.Chmod(w.path("credentials"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found := newPatient(t, w).examineNodes(t.Context()); len(found) != 1 || found[0].Result != illness || !strings.Contains(found[0].Text, "everybody on this host can read "+w.path("credentials")) {
		t.Errorf("of credentials that everybody can read the doctor says %+v", found)
	}
	if out := w.must("database", "check"); out != "the ledger is sound\n" {
		t.Errorf("the check says %s", out)
	}
	w.must("database", "backup", w.path("backup.db"))
	w.must("database", "migrate", "--to", w.path("back.db"))

	for _, file := range []string{"backup.db", "back.db"} {
		settle(w.path(file), "")
		if got := w.must("account", "list"); !strings.Contains(got, "suspended") {
			t.Errorf("%s has the accounts\n%s", file, got)
		}
		w.must("account", "resume", "acme")
	}
	settle(w.path("mailbag.db"), "")
	w.must("database", "migrate", "--stay")
	w.must("account", "set", "acme", "--contact", "boss@elsewhere.example")
}
