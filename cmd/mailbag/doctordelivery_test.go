package main

import (
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/cmd/internal/settings"
)

func TestDoctorSeesWhetherPostfixReachesTheSocketsOfDelivery(t *testing.T) {
	t.Parallel()
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var s settings.Settings
	s.POP.Deliver = settings.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "deliver.sock")}
	s.Turn.Sockets = t.TempDir()
	listen := func(path string) {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	mode := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	turn := filepath.Join(s.Turn.Sockets, "corp.sock")
	listen(s.POP.Deliver.Address)
	listen(turn)
	mode(s.Turn.Sockets, 0o750|os.ModeSetgid)
	if found := examineDelivery(&s, self.Username); found != nil {
		t.Errorf("where all is well: %+v", found)
	}
	mode(s.POP.Deliver.Address, 0)
	mode(turn, 0)
	mode(s.Turn.Sockets, 0o750)
	found := examineDelivery(&s, self.Username)
	for i, want := range []string{"mail for mailboxes: the user " + self.Username + " may not connect", "the mail of a turn: the user " + self.Username + " may not connect", "does not hand the group"} {
		if i >= len(found) || found[i].Result != illness || !strings.Contains(found[i].Text, want) || found[i].Remedy == "" {
			t.Errorf("%q is not said: %+v", want, found)
		}
	}
}

func TestDoctorAsksAtTheSocketOfTheMilterToo(t *testing.T) {
	t.Parallel()
	var s settings.Settings
	s.Policy.Milter = settings.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "milter")}
	if d := examineDaemons(t.Context(), &s)[0]; d.Result != illness || !strings.Contains(d.Text, "at "+s.Policy.Milter.String()+": nobody answers") {
		t.Errorf("where it is missing: %+v", d)
	}
}
