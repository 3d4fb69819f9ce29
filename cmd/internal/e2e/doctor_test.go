package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestDoctorTriesTheRealThing has one thing after another fail, and looks whether it is told, once.
func TestDoctorTriesTheRealThing(t *testing.T) {
	s := begin(t, mtatest.Config{})
	certificate.New(t, "mx.provider.example").Write(t, s.Certificate(), s.Key())
	// The sockets of turns get its group, by which the MTA reaches them.
	turns := filepath.Dir(s.TurnSocket("bolt"))
	s.must(errors.Join(os.Chown(turns, s.mta.User(), s.mta.Gid()), os.Chmod(turns, 0o755|os.ModeSetgid)))
	s.must(errors.Join(s.Turnd.Start(), s.Popd.Start()))
	s.etrn("bolt", "bolt.example")
	s.account("dent", "pop3", "dent.example", "--generate-password")
	s.account("list", "atrn", "list.example", "--generate-password", "--recipients", "list")
	s.mailbag("recipient", "add", "list", "joe@list.example")
	s.must(s.Wire())
	s.must(s.mta.Reload())

	ill := func() (all []string) {
		t.Helper()
		out, _, _ := s.Mailbag("doctor", "--within", "1m", "--json")
		var found []struct{ Part, Result, Text, Remedy string }
		s.must(json.Unmarshal([]byte(out), &found))
		for _, d := range found {
			if d.Result == "failed" {
				all = append(all, d.Part+": "+d.Text)
			}
		}
		return all
	}
	wants := func(when, part string) {
		t.Helper()
		if all := ill(); len(all) != 1 || !strings.HasPrefix(all[0], part) {
			t.Errorf("%s: found %q, want one of %s", when, all, part)
		}
	}
	// The daemons read the certificate when they see it, and the MTA its tables.
	s.content(ill)
	if out := s.mailbag("doctor", "--within", "1m"); !strings.Contains(out, "mail is accepted for this host, list (atrn), bolt (etrn), dent (pop3)") &&
		!strings.Contains(out, "mail is accepted for this host, bolt (etrn), dent (pop3), list (atrn)") {
		t.Errorf("not every kind of account was tried:\n%s", out)
	}
	if queued, counted := s.queued(), s.usage("bolt"); queued != 0 || counted != (used{}) {
		t.Errorf("%d messages were queued, %+v counted", queued, counted)
	}

	s.must(s.mta.Stop())
	wants("while the MTA is stopped", s.mta.Name()+": "+s.mta.String()+" does not run")
	if out, _, _ := s.Mailbag("doctor", "--within", "1m"); strings.Count(out, "does not run") != 1 {
		t.Errorf("an MTA that is stopped is told of more than once:\n%s", out)
	}
	s.must(s.mta.Start())
	s.content(ill)
	s.must(s.Popd.Stop())
	wants("while mailbag-popd is stopped", "popd: mailbag-popd at ")
	s.must(s.Popd.Start())
	s.content(ill)
	s.must(s.Daemon.Stop())
	wants("while mailbag-policyd is stopped", "policyd: mailbag-policyd at ")
	s.must(s.Daemon.Start())
	s.content(ill)
	s.must(os.Rename(s.Ledger, s.Ledger+".away"))
	wants("while the ledger is away", "ledger: there is no ledger")
	s.must(os.Rename(s.Ledger+".away", s.Ledger))
	s.content(ill)
}

// content waits until nothing is ill.
func (s *story) content(ill func() []string) {
	s.t.Helper()
	var last []string
	if err := postfixtest.Wait("the doctor to be content", func() bool { last = ill(); return last == nil }); err != nil {
		s.t.Fatalf("%v; it finds %q", err, last)
	}
}
