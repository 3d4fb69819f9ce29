package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
)

func TestRecordFromTheFutureCastsDoubtOnTheClock(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	p := newPatient(t, w)
	if d := p.examineClock(t.Context())[0]; strings.Contains(d.Text, "record") {
		t.Errorf("of the present: %+v", d)
	}
	p.console.now = func() time.Time { return time.Now().Add(-time.Hour) }
	if d := p.examineClock(t.Context())[0]; d.Result != doubt || !strings.Contains(d.Text, "the ledger has a record of ") || d.Remedy == "" {
		t.Errorf("of the future: %+v", d)
	}
}

func TestEachDiskIsLookedAtOnceWithAllThatIsOnIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	below := filepath.Join(dir, "not", "there")
	found := examineDisks(dir, below, "/proc")
	if len(found) != 2 || !strings.Contains(found[0].Text, dir+", "+below) {
		t.Fatalf("found: %+v", found)
	}
	if len(found[0].readings) != 4 || !slices.Equal(found[0].readings[3].labels, []string{"directory", below, "of", "inodes"}) {
		t.Errorf("the readings: %+v", found[0].readings)
	}
	for _, c := range []struct {
		space, inodes float64
		want          verdict
		cause         cause
		remedy        string
	}{{0.5, 0.5, well, "", ""}, {0.09, 0.5, doubt, "", "make room"}, {0.019, 0.5, illness, fullDisk, "make room"}, {0.5, 0.01, illness, fullDisk, "inodes"}} {
		d := (&disk{directories: []string{dir}, space: c.space, inodes: c.inodes}).diagnosis()
		if d.Result != c.want || d.cause != c.cause || !strings.Contains(d.Remedy, c.remedy) {
			t.Errorf("%+v: %+v", c, d)
		}
	}
}

func TestFullDiskOfBackupsAloneRefusesNoMail(t *testing.T) {
	t.Parallel()
	if d := (&disk{directories: []string{backups}}).diagnosis(); d.Result != illness || d.cause != noBackups {
		t.Errorf("%+v", d)
	}
	if d := (&disk{directories: []string{"/var/lib/mailbag", backups}}).diagnosis(); d.cause != fullDisk {
		t.Errorf("%+v", d)
	}
}

// newPatient is one that is admitted with the ledger of a workplace.
func newPatient(t *testing.T, w workplace) *patient {
	t.Helper()
	s, err := settings.Load(w.path("mailbag.toml"))
	if err != nil {
		t.Fatal(err)
	}
	p := (&console{now: time.Now}).patient(byHand(time.Minute), s, w.mta)
	p.admit(t.Context())
	if p.desk == nil {
		t.Fatal("there is no ledger")
	}
	t.Cleanup(func() { p.desk.ledger.Close() })
	return p
}
