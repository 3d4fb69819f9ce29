package claim

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// directory makes one of that mode.
func directory(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// modes are of a directory that strangers can open, and of one that they cannot.
var modes = map[string]os.FileMode{"open": 0o755, "closed": 0o750}

func TestOneAtATimeHasAClaimAndNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := directory(t, mode)
			path := filepath.Join(dir, "socket")
			var (
				all sync.WaitGroup
				in  atomic.Int32
			)
			for range 20 {
				all.Go(func() {
					for range 10 {
						release, err := Take(t.Context(), path, time.Minute)
						if err != nil {
							t.Error(err)
							return
						}
						if in.Add(1) != 1 {
							t.Error("two have the claim")
						}
						in.Add(-1)
						release()
					}
				})
			}
			all.Wait()
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestAClaimThatIsTakenIsRefusedInTime(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(directory(t, mode), "socket")
			release, err := Take(t.Context(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			if _, err := Take(t.Context(), path, 2*pause); !errors.Is(err, ErrTaken) {
				t.Errorf("the second one is told %v", err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := Take(ended, path, time.Hour); !errors.Is(err, context.Canceled) {
				t.Errorf("one whose time is over is told %v", err)
			}
		})
	}
}

func TestAStrangersLockOnAnOpenDirectoryIsNoClaim(t *testing.T) {
	t.Parallel()
	dir := directory(t, 0o755)
	stranger, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := syscall.Flock(int(stranger.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	release, err := Take(t.Context(), filepath.Join(dir, "socket"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if info, err := os.Stat(filepath.Join(dir, "socket.lock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock file is %v, %v; want mode 0600", info, err)
	}
}

func TestALockFileThatOthersCanOpenIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(directory(t, 0o755), "socket")
	if err := os.WriteFile(path+".lock", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), path, 0); err == nil || !strings.Contains(err.Error(), "others can open "+path+".lock") {
		t.Errorf("the error is %v", err)
	}
}
