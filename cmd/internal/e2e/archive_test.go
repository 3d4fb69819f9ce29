package e2e

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
)

// TestEvidenceOutlivesItsDayInAFile has mail come, makes it five days old, and goes through the life of its evidence.
func TestEvidenceOutlivesItsDayInAFile(t *testing.T) {
	s := begin(t, mtatest.Config{})
	server := sink(t)
	s.account("acme", "backup", "acme.example", "--host", server.Addr())
	s.etrn("globex", "globex.example")
	data, _ := letter("old", 3)
	for i := range 5 {
		s.accept(data, fmt.Sprintf("user%d@acme.example", i))
	}
	_, err := server.WaitMessages(5)
	s.must(err)
	s.waitFor("nothing to wait", func() bool { return s.queued() == 0 })
	s.waits(1, "a@globex.example")
	old := time.Now().In(s.zone).AddDate(0, 0, -5)
	s.setBack(5)

	listed := func(account string) string {
		return s.mailbag("usage", account, "--month", old.Format("2006-01"), "--messages-csv")
	}
	billed := func() string { return s.mailbag("invoice", "--month", old.Format("2006-01")) }
	acme, globex, bill := listed("acme"), listed("globex"), billed()
	if strings.Count(acme, "\n") != 6 || strings.Count(globex, "\n") != 2 {
		t.Fatalf("before, the evidence is\n%s%s", acme, globex)
	}
	unchanged := func(when string) {
		t.Helper()
		if got := listed("acme") + listed("globex"); got != acme+globex {
			t.Errorf("%s the evidence is\n%s\nand was\n%s", when, got, acme+globex)
		}
		if got := billed(); got != bill {
			t.Errorf("%s the bills are\n%s\nand were\n%s", when, got, bill)
		}
		if got := s.mailbag("database", "check"); got != "the ledger is sound\n" {
			t.Errorf("%s the check says %s", when, got)
		}
	}

	file := filepath.Join(filepath.Dir(s.Ledger), "evidence", old.Format(time.DateOnly)+".csv.gz")
	_, said, err := s.Mailbag("expire")
	if s.must(err); !strings.Contains(said, "moved the evidence of 1 day to files: 5 records") { // the sixth waits
		t.Errorf("expire says %s", said)
	}
	unchanged("in a file")
	if _, said, err := s.Mailbag("expire"); err != nil || strings.Contains(said, "moved") {
		t.Errorf("once more expire says %s, %v", said, err)
	}
	backup := filepath.Join(s.t.TempDir(), "copy.db")
	s.mailbag("database", "backup", backup)
	whole, err := os.ReadFile(file)
	s.must(err)
	for what, spoil := range map[string]func() error{
		"damaged": func() error { return os.WriteFile(file, whole[:len(whole)-1], 0o640) },
		"away":    func() error { return os.Remove(file) },
	} {
		s.must(spoil())
		for _, command := range [][]string{
			{"usage", "acme", "--month", old.Format("2006-01"), "--messages-csv"},
			{"database", "check"},
			{"doctor", "--within", "1m"},
		} {
			out, errs, err := s.Mailbag(command...)
			if err == nil || !strings.Contains(out+errs, "evidence is missing, that of "+old.Format(time.DateOnly)+" for 5 messages") {
				t.Errorf("with the file %s mailbag %s says %s%s, %v", what, strings.Join(command, " "), out, errs, err)
			}
		}
		s.beside("cp", filepath.Join(filepath.Dir(backup), "evidence", filepath.Base(file)), file)
		unchanged("after it was " + what + " and restored")
	}

	s.set("[billing]", "[retention]\nmessages = '3d'\n[billing]")
	s.mailbag("expire")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is kept beyond its time: %v", err)
	}
	if got := billed(); got != bill {
		t.Errorf("without evidence the bills are\n%s\nand were\n%s", got, bill)
	}
	if got := s.mailbag("database", "check"); got != "the ledger is sound\n" {
		t.Errorf("without evidence the check says %s", got)
	}
}

// setBack has all that was counted be counted some days before.
func (s *story) setBack(days int) {
	s.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+s.Ledger+"?_busy_timeout=60000")
	s.must(err)
	defer db.Close()
	tx, err := db.Begin()
	s.must(err)
	for _, statement := range []string{
		"CREATE TEMP TABLE was AS SELECT * FROM message",
		"DELETE FROM message", "DELETE FROM usage", "DELETE FROM domain_usage",
		fmt.Sprintf(`INSERT INTO message (host, instance, account, at, day, queue_id, size, client, domains)
			SELECT host, instance, account, at - %[1]d * 86400000, date(day, '-%[1]d days'), queue_id, size, client, domains FROM was`, days),
	} {
		_, err := tx.Exec(statement)
		s.must(err)
	}
	s.must(tx.Commit())
}
