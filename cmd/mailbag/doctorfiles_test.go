package main

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/access"
	"mailbag/cmd/internal/settings"
	"mailbag/popd"
)

func TestDoctorSeesWhetherPostfixReachesTheSocketsOfDelivery(t *testing.T) {
	t.Parallel()
	owner, own := ordinary(t)
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
	own(filepath.Dir(s.Turn.Sockets), filepath.Dir(s.POP.Deliver.Address), s.POP.Deliver.Address, s.Turn.Sockets, turn)
	mode(s.Turn.Sockets, 0o750|os.ModeSetgid)
	if found := (&patient{settings: &s}).examineDelivery(owner); found != nil {
		t.Errorf("where all is well: %+v", found)
	}
	mode(s.POP.Deliver.Address, 0)
	mode(turn, 0)
	mode(s.Turn.Sockets, 0o750)
	found := (&patient{settings: &s}).examineDelivery(owner)
	for i, want := range []string{"mail for mailboxes: the user " + owner + " may not connect", "the mail of a turn: the user " + owner + " may not connect", "does not hand the group"} {
		if i >= len(found) || found[i].Result != illness || !strings.Contains(found[i].Text, want) || found[i].Remedy == "" {
			t.Errorf("%q is not said: %+v", want, found)
		}
	}
}

// ordinary is a user who is not root, and how he comes to own files.
func ordinary(t *testing.T) (name string, own func(paths ...string)) {
	t.Helper()
	self, err := user.Current()
	if err == nil && self.Uid != "0" {
		return self.Username, func(...string) {}
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	return nobody.Username, func(paths ...string) {
		for _, path := range paths {
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWhatTheDaemonsCannotUseIsNamedWithItsCure(t *testing.T) {
	t.Parallel()
	name, own := ordinary(t)
	u, err := access.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	state := filepath.Join(top, "state")
	root, ledger, key := filepath.Join(state, "maildirs"), filepath.Join(state, "mailbag.db"), filepath.Join(top, "key.pem")
	box := popd.NewStore(root, time.Now).Maildir("dent", "")
	message := filepath.Join(box.Path(), "new", "1.M1")
	if err := errors.Join(os.Mkdir(state, 0o755), os.Mkdir(root, 0o755), box.Create(), os.WriteFile(message, nil, 0o600),
		os.WriteFile(ledger, nil, 0o600), os.WriteFile(key, nil, 0o600), os.Chmod(filepath.Dir(top), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.Walk(top, func(path string, _ os.FileInfo, err error) error { own(path); return err }); err != nil {
		t.Fatal(err)
	}
	all := append(mailOf(root, "dent"), belonging{state, everything, state, noLedger}, belonging{ledger, access.Read | access.Write, state, noLedger}, belonging{key, access.Read, "", ""})
	found := func() (texts, remedies []string) {
		for _, b := range all {
			for _, d := range b.examine(u) {
				texts, remedies = append(texts, d.Text), append(remedies, d.Remedy)
			}
		}
		return texts, remedies
	}
	if texts, _ := found(); texts != nil {
		t.Fatalf("where all is well: %q", texts)
	}
	for _, c := range []struct {
		path   string
		mode   os.FileMode
		remedy string
		why    string
	}{
		{message, 0o000, "run: chmod -R u+rwX " + root, "may not read " + message},
		{filepath.Join(box.Path(), "cur"), 0o500, "run: chmod -R u+rwX " + root, "may not write"},
		{ledger, 0o400, "run: chmod -R u+rwX " + state, "may not write " + ledger},
		{key, 0o000, "run: chgrp mailbag " + key + " && chmod 640 " + key, "may not read " + key},
	} {
		info, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		texts, remedies := found()
		if len(texts) == 0 || !strings.Contains(strings.Join(texts, "\n"), c.why) || remedies[0] != c.remedy {
			t.Errorf("%s with the mode %04o: %q, %q", c.path, c.mode, texts, remedies)
		}
		if err := os.Chmod(c.path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.Chown(box.Path(), 0, 0), os.Chmod(box.Path(), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, remedies := found(); len(remedies) == 0 || remedies[0] != "run: chown -R mailbag:mailbag "+root {
		t.Errorf("what is root's: %q", remedies)
	}
}
