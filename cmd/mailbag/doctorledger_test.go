package main

import (
	"database/sql"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"mailbag/meter"
)

func TestLedgerThatAnotherProcessHasLockedIsFoundWithIt(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	p := newPatient(t, w)
	cmd := exec.Command("sqlite3", w.path("mailbag.db"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	fmt.Fprintln(in, "BEGIN IMMEDIATE; SELECT 'locked';")
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	found := p.examineLedger(t.Context())
	if want := fmt.Sprintf("sqlite3 (process %d) has %s locked", cmd.Process.Pid, w.path("mailbag.db")); len(found) != 1 || found[0].Result != illness || !strings.HasPrefix(found[0].Text, want) {
		t.Errorf("found %+v, want %q", found, want)
	}
}

func TestDamagedLedgerIsToBeRestored(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	says := func(what string) {
		t.Helper()
		if _, out, _ := w.run("doctor", "--within", "1m"); !strings.Contains(out, "failed   ledger") || !strings.Contains(out, "stop the daemons, keep a copy of the file, and restore") {
			t.Errorf("%s:\n%s", what, out)
		}
	}
	db, err := sql.Open("sqlite3", w.path("mailbag.db"))
	if err != nil {
		t.Fatal(err)
	}
	var page, size int64
	if err := db.QueryRow("SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'message_at'").Scan(&page, &size); err != nil {
		t.Fatal(err)
	}
	db.Close() // the last connection brings all into the file
	f, err := os.OpenFile(w.path("mailbag.db"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 300)), (page-1)*size); err != nil {
		t.Fatal(err)
	}
	says("with a page that is none")
	if _, err := f.WriteAt([]byte("no ledger at all"), 0); err != nil {
		t.Fatal(err)
	}
	says("with another head")
}

func TestAFileOfEvidenceThatLacksIsTold(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	l, err := meter.Open(t.Context(), w.path("mailbag.db"), meter.Options{Now: func() time.Time { return time.Now().Add(5 * 24 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all, err := l.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := meter.NewRecorder(l, nil)
	defer r.Close()
	if err := r.Record(meter.Message{Instance: "Q@1", QueueID: "Q", At: time.Now(), Accounts: []*meter.Account{all.Account("acme")}}, nil); err != nil {
		t.Fatal(err)
	}
	if done, err := l.Archive(t.Context(), func() iter.Seq2[string, error] { return func(func(string, error) bool) {} }); err != nil || done.Days != 1 {
		t.Fatalf("archived %+v, %v", done, err)
	}
	if err := os.RemoveAll(w.path("evidence")); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := w.run("doctor", "--within", "1m"); !strings.Contains(out, "failed   ledger") || !strings.Contains(out, "evidence is missing") || strings.Contains(out, "stop the daemons") {
		t.Errorf("the doctor says\n%s", out)
	}
}
