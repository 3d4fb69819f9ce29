package e2e

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestLedgerInTrouble takes the ledger away in every way it can go, and gives it back.
func TestLedgerInTrouble(t *testing.T) {
	for name, trouble := range map[string]func(s *story) (mend func()){
		"missing": func(s *story) func() {
			s.must(os.Rename(s.Ledger, s.Ledger+".away"))
			return func() { s.must(os.Rename(s.Ledger+".away", s.Ledger)) }
		},
		"read-only": func(s *story) func() {
			// A bind mount, since no mode keeps root from writing.
			dir := s.mta.Path("mailbag")
			s.beside("mount", "--bind", dir, dir)
			s.beside("mount", "-o", "remount,ro,bind", dir)
			mend := func() { s.beside("umount", "--lazy", dir) }
			// What the daemon holds open stays writable, as it does not when a disk fails: it has to open anew.
			s.must(s.Stop())
			s.must(s.Start())
			return mend
		},
		"on a full disk": func(s *story) func() {
			dir, aside := filepath.Dir(s.Ledger), s.t.TempDir()
			s.must(s.Stop())
			s.beside("cp", "-p", s.Ledger, s.Config, aside)
			s.beside("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=1m,mode=755,uid=%d", s.mta.User()), "tmpfs", dir)
			s.t.Cleanup(func() { s.beside("umount", "--lazy", dir) })
			s.beside("cp", "-p", filepath.Join(aside, filepath.Base(s.Ledger)), filepath.Join(aside, filepath.Base(s.Config)), dir)
			s.must(s.Start())
			filler := filepath.Join(dir, "filler")
			if err := s.mta.Command("dd", "if=/dev/zero", "of="+filler, "bs=1M", "count=2").Run(); err == nil {
				s.t.Fatal("two megabytes fit on a disk of one")
			}
			return func() { s.beside("rm", filler) }
		},
		"locked": func(s *story) func() {
			db, err := sql.Open("sqlite3", "file:"+s.Ledger+"?_txlock=exclusive")
			s.must(err)
			tx, err := db.Begin()
			s.must(err)
			return func() {
				s.must(tx.Rollback())
				s.must(db.Close())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t, mtatest.Config{Local: []string{"local.example"}})
			s.etrn("acme", "acme.example")
			data, size := letter("trouble", 1)
			s.accept(data, "a@acme.example")
			mend := trouble(s)
			mended := false
			defer func() {
				if !mended {
					mend()
				}
			}()
			queued := s.queued()
			for range 2 {
				outcome := s.send("x@elsewhere.example", data, "a@acme.example")
				if !deferred(outcome) {
					t.Errorf("mail for an account: %+v, want 4xx", outcome)
				}
			}
			s.accept(data, "someone@local.example") // other domains do not suffer
			s.waitFor("nothing unmetered is in the queue", func() bool { return s.queued() == queued })
			mend()
			mended = true
			s.waitFor("mail is accepted again", func() bool {
				return s.send("x@elsewhere.example", data, "a@acme.example").Accepted()
			})
			s.wantUsage("acme", used{2, 2 * size})
		})
	}
}

// deferred reports whether a message for one recipient was refused for now.
func deferred(o postfixtest.Outcome) bool {
	return strings.HasPrefix(o.Recipients[0], "4") || strings.HasPrefix(o.Recipients[0], "2") && strings.HasPrefix(o.Data, "4")
}

func TestChangesOfTheCommandLineAreInForceAtOnce(t *testing.T) {
	s := begin(t, mtatest.Config{})
	data, size := letter("news", 1)
	// Not the address that is used below: an smtpd process remembers how it resolved one.
	if outcome := s.send("x@elsewhere.example", data, "before@acme.example"); outcome.Accepted() {
		t.Fatal("mail for a domain that nobody has was accepted")
	}
	s.etrn("acme", "acme.example")
	s.accept(data, "a@acme.example")
	s.mailbag("account", "suspend", "acme")
	s.waitFor("the account is suspended", func() bool {
		return strings.HasPrefix(s.send("x@elsewhere.example", data, "a@acme.example").Recipients[0], "450 4.2.1")
	})
	before := s.usage("acme").Messages
	s.mailbag("account", "resume", "acme")
	s.waitFor("the account is resumed", func() bool { return s.send("x@elsewhere.example", data, "a@acme.example").Accepted() })
	s.wantUsage("acme", used{before + 1, (before + 1) * size})
}

func TestETRNBeforeThereIsAnybodyToDeliver(t *testing.T) {
	s := begin(t, mtatest.Config{})
	server := postfixtest.RunSink(t)
	s.etrn("held", "held.example")
	s.waits(1, "a@held.example")
	s.account("away", "backup", "away.example", "--host", server.Addr(), "--network", "127.0.0.3/32")
	for _, c := range []struct{ source, domain, want string }{
		{"127.0.0.1", "held.example", "458"},    // nothing opens turns yet
		{"127.0.0.9", "held.example", "459"},    // not its network
		{"127.0.0.3", "away.example", "250"},    // a backup account may flush
		{"127.0.0.9", "away.example", "459"},    // but not from anywhere
		{"127.0.0.1", "unknown.example", "459"}, // nobody's here
	} {
		client, err := postfixtest.Dial(s.mta.Addr(), c.source)
		s.must(err)
		s.must(say(client, "EHLO client.example", "250"))
		if reply, err := client.Say("ETRN " + c.domain); err != nil || !strings.HasPrefix(reply, c.want) {
			t.Errorf("ETRN %s from %s: %q, %v; want %s", c.domain, c.source, reply, err, c.want)
		}
		client.Close()
	}
}
