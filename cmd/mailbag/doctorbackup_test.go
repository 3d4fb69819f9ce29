package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNewestBackupIsLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	dir, now := t.TempDir(), time.Now()
	path := filepath.Join(dir, "mailbag-20260301T000000Z.db")
	says := func(want string, since, at time.Time) {
		t.Helper()
		got := byHand(time.Minute).examineBackup(t.Context(), dir, since, at)
		if len(got) != 1 || !strings.HasPrefix(string(got[0].Result)+": "+got[0].Text, want) || (got[0].Result != well) != (got[0].Remedy != "") {
			t.Errorf("found %+v, want %q", got, want)
		}
		if len(got[0].readings) != 1 {
			t.Errorf("%q has no reading", want)
		}
	}
	says("ok: none yet", time.Time{}, now)
	says("ok: none yet", now.Add(-time.Hour), now)
	says("failed: there is no copy", now.Add(-3*24*time.Hour), now)
	dir = filepath.Join(dir, "none")
	says("failed: there is no directory "+dir, time.Time{}, now)
	dir = filepath.Dir(dir)
	w.must("database", "backup", path)
	says("ok: "+path+" has 1 accounts", now, now)
	says("failed: the newest copy of the ledger, "+path+", is 3 days old", now, now.Add(73*time.Hour))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	says("warning: others may read "+path, now, now)
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	says("failed: the newest copy of the ledger, "+path+", is of no use", now, now)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside the copy there is something: %v, %v", left, err)
	}
}
