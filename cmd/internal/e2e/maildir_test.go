package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"mailbag/testdata/dovecot"
	postfixtest "mailbag/testdata/postfix"
)

// beginDovecot starts a private Dovecot beside the story.
func (s *story) beginDovecot() *dovecot.Instance {
	s.t.Helper()
	dir := s.mta.Path("dovecot")
	s.must(os.Mkdir(dir, 0o755))
	d, err := dovecot.New(dir)
	s.must(err)
	s.must(d.Start())
	s.t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			s.t.Error(err)
		}
	})
	return d
}

// TestMaildirsAreEverybodys has Dovecot and mutt read what mailbag-popd wrote, and mailbag-popd read what Dovecot and
// Postfix's virtual(8) wrote. Each sees the same messages in the same octets.
func TestMaildirsAreEverybodys(t *testing.T) {
	s := beginPostfix(t, "virtual(8) is Postfix's", postfixtest.Config{Main: postfixtest.Restless()}, func(p *postfixtest.Instance) {
		if err := p.Set("virtual_mailbox_domains", "virtual.example"); err != nil {
			t.Fatal(err)
		}
		for parameter, value := range map[string]string{
			"virtual_mailbox_base": p.Path("virtual"), "virtual_mailbox_maps": "inline:{ { info@virtual.example = box/ } }",
			"virtual_uid_maps": "static:1000", "virtual_gid_maps": "static:1000", "virtual_minimum_uid": "100",
		} {
			if err := p.Set(parameter, value); err != nil {
				t.Fatal(err)
			}
		}
	})
	s.startPOP()
	d := s.beginDovecot()
	password := s.pop3("acme", "acme.example")
	ours := s.maildir("acme", "")
	for _, message := range corpus() {
		s.accept(message, "info@acme.example")
	}
	want := s.stored(ours, len(corpus()))

	read := map[string][]string{}
	mutt := s.mta.Path("mutt")
	s.must(os.MkdirAll(filepath.Join(mutt, "got"), 0o700))
	s.must(os.Mkdir(filepath.Join(mutt, "Mail"), 0o700)) // it asks whether to make it
	cmd := exec.Command("script", "--quiet", "--return", "--command", "mutt -n -F /dev/null -R -f "+ours+
		` -e 'set pipe_decode=no pipe_split=yes pipe_sep="" wait_key=no' -e 'push "<tag-pattern>~A<enter>;|cat >$(mktemp -p `+mutt+`/got)<enter><exit>"'`, "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=vt100", "HOME="+mutt)
	terminal, err := cmd.StdinPipe() // held open: the end of it would be a key that is pressed
	s.must(err)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mutt: %v\n%s", err, out)
	}
	terminal.Close()
	read["mutt"] = s.read(filepath.Join(mutt, "got"))

	theirs := filepath.Join(d.Users, "acme")
	s.must(os.CopyFS(theirs, os.DirFS(ours)))
	s.must(d.Own())
	read["Dovecot"], err = fetchAll(d.POP3, "acme", "any", false)
	s.must(err)
	// Dovecot has moved them all to cur by now, and written its indexes.
	s.must(os.RemoveAll(ours))
	s.must(os.CopyFS(ours, os.DirFS(theirs)))
	read["mailbag-popd behind Dovecot"], err = fetchAll(s.POP3, "acme", password, false)
	s.must(err)
	for name, got := range read {
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s reads other messages (-want +got):\n%.3000s", name, diff)
		}
	}

	// The other way round: of Dovecot's LMTP and of virtual(8).
	conn, err := net.Dial("unix", d.LMTP)
	s.must(err)
	sender := smtp.NewClientLMTP(conn)
	defer sender.Close()
	for _, message := range corpus() {
		s.must(sender.SendMail("x@elsewhere.example", []string{"globex"}, strings.NewReader(message)))
	}
	byDovecot, err := fetchAll(d.POP3, "globex", "any", false)
	s.must(err)
	s.must(os.Mkdir(s.mta.Path("virtual"), 0o777))
	s.must(os.Chmod(s.mta.Path("virtual"), 0o777))
	for _, message := range corpus() {
		s.accept(message, "info@virtual.example")
	}
	byVirtual := s.stored(s.mta.Path("virtual/box"), len(corpus()))
	for account, from := range map[string]struct {
		maildir string
		want    []string
	}{
		"globex":  {filepath.Join(d.Users, "globex"), byDovecot},
		"initech": {s.mta.Path("virtual/box"), byVirtual},
	} {
		password := s.pop3(account, account+".example")
		s.must(os.CopyFS(s.maildir(account, ""), os.DirFS(from.maildir)))
		slices.Sort(from.want)
		for range 2 { // sizes are computed, and then remembered
			got, err := fetchAll(s.POP3, account, password, false)
			s.must(err)
			slices.Sort(got)
			if diff := cmp.Diff(from.want, got); diff != "" {
				t.Errorf("of what %s has mailbag-popd reads (-want +got):\n%.3000s", account, diff)
			}
		}
	}
}
