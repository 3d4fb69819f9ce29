package exim

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mailbag/cmd/internal/mta"
)

// aSpool is one with messages in the named queue, whose IDs it returns.
func aSpool(t *testing.T, messages int) (s spool, input string, ids []string) {
	t.Helper()
	s = spool(t.TempDir())
	input = s.input(heldQueue)
	if err := os.MkdirAll(input, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		id := "1aaaaa-000000-0" + string(rune('0'+i))
		writeFiles(t, input, map[string]string{id + "-H": headerOf(id, "XX"), id + "-D": id + "-D\nbody\n"})
		ids = append(ids, id)
	}
	return s, input, ids
}

func headerOf(id, tree string) string {
	return id + "-H\nroot 0 0\n<x@held.example>\n1 0\n" + tree + "\n1\nu1@c1.example\n\n007  a: bcd\n"
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// listed are the IDs that a listing has.
func listed(s spool) (ids []string, err error) {
	err = s.list(context.Background(), func(e mta.Entry) error {
		ids = append(ids, e.ID)
		return nil
	})
	slices.Sort(ids)
	return ids, err
}

// What cannot be opened because this process has too many files open has not gone.
func TestMessagesThatCannotBeOpenedNowAreNotGone(t *testing.T) {
	s, _, ids := aSpool(t, 3)
	lowest, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	free := uint64(lowest.Fd())
	lowest.Close()
	var usual syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	limit := func(files uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: usual.Max}); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(usual.Cur)
	limit(free + 1) // the directory, and nothing else
	_, err = listed(s)
	if !errors.Is(err, mta.ErrTruncated) {
		t.Errorf("the listing ends with %v", err)
	}
	limit(free)
	if all, err := s.waiting(ids); err == nil {
		t.Errorf("%d messages wait, and there is no error", len(all))
	}
}

func TestFileThatIsPassedOverIsNamedOnce(t *testing.T) {
	s, input, ids := aSpool(t, 1)
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	torn := "1aaaaa-000000-09"
	look := func(want int) {
		t.Helper()
		got, err := listed(s)
		if n := strings.Count(log.String(), torn+"-H"); err != nil || !slices.Equal(got, ids) || n != want {
			t.Errorf("the queue has %q (%v), the file is named %d times, want %d", got, err, n, want)
		}
	}
	tear := func() { writeFiles(t, input, map[string]string{torn + "-H": torn + "-H\nroot", torn + "-D": ""}) }
	tear()
	look(1)
	look(1)
	if err := os.Remove(filepath.Join(input, torn+"-H")); err != nil {
		t.Fatal(err)
	}
	look(1)
	tear()
	look(2)
}

// The spool is Exim's user's, and its reader may be root: nothing there keeps it waiting, leads it elsewhere or fills its memory.
func TestHostileFilesArePassedOver(t *testing.T) {
	bad := "1aaaaa-000000-09"
	for name, put := range map[string]func(path string) error{
		"a pipe with a writer": func(path string) error {
			if err := syscall.Mkfifo(path+"-H", 0o600); err != nil {
				return err
			}
			f, err := os.OpenFile(path+"-H", os.O_RDWR, 0)
			t.Cleanup(func() { f.Close() })
			return err
		},
		"a directory": func(path string) error { return os.Mkdir(path+"-H", 0o700) },
		"a link":      func(path string) error { return os.Symlink(filepath.Dir(path)+"/1aaaaa-000000-00-H", path+"-H") },
		"an endless tree": func(path string) error {
			return os.WriteFile(path+"-H", []byte(headerOf(bad, strings.Repeat("YN "+strings.Repeat("x", 60_000)+"\n", 200)+"NN x")), 0o600)
		},
		"an endless journal": func(path string) error {
			return errors.Join(os.WriteFile(path+"-H", []byte(headerOf(bad, "XX")), 0o600),
				os.WriteFile(path+"-J", []byte(strings.Repeat(strings.Repeat("x", 4000)+"\n", 3000)), 0o600))
		},
		"a journal that is a pipe": func(path string) error {
			return errors.Join(os.WriteFile(path+"-H", []byte(headerOf(bad, "XX")), 0o600), syscall.Mkfifo(path+"-J", 0o600))
		},
	} {
		s, input, ids := aSpool(t, 1)
		path := filepath.Join(input, bad)
		writeFiles(t, input, map[string]string{bad + "-D": ""})
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if got, err := listed(s); err != nil || !slices.Equal(got, ids) {
			t.Errorf("%s: the queue has %q, %v", name, got, err)
		}
	}
}

// A crash of the machine leaves octets of zero. The message waits all the same.
func TestJournalWithOctetsOfZeroHidesNoMessage(t *testing.T) {
	s, input, ids := aSpool(t, 1)
	writeFiles(t, input, map[string]string{ids[0] + "-J": "other@c1.example\n\x00\x00\x00\x00\n"})
	if got, err := listed(s); err != nil || !slices.Equal(got, ids) {
		t.Errorf("the queue has %q, %v", got, err)
	}
}

// A log of a message that is none keeps nobody waiting.
func TestLogThatIsAPipeIsNotWaitedFor(t *testing.T) {
	s, input, ids := aSpool(t, 1)
	log := filepath.Join(filepath.Dir(input), "msglog")
	if err := errors.Join(os.Mkdir(log, 0o700), syscall.Mkfifo(filepath.Join(log, ids[0]), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := listed(s); err != nil || !slices.Equal(got, ids) {
		t.Errorf("the queue has %q, %v", got, err)
	}
}
