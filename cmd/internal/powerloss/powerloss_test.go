package powerloss

import (
	crand "crypto/rand"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailbag/testdata/blackout"
)

var (
	cuts = flag.Int("cuts", 5, "how many times the power fails in each test")
	seed = flag.Uint64("seed", rand.Uint64(), "of what chance decides")
)

// boot is the file in the place of bootID.
var boot string

// bootID is what the kernel names the machine's boot by. The tests have mounts of their own, so that it can be another after
// each failure.
const bootID = "/proc/sys/kernel/random/boot_id"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	const variable = "MAILBAG_POWERLOSS"
	if blackout.Available() != nil || exec.Command("unshare", "--mount", "true").Run() != nil || os.Getenv(ledgerVariable) != "" {
		return m.Run() // every test says why it is skipped, or is a part of one
	}
	if os.Getenv(variable) == "" {
		unshare, err := exec.LookPath("unshare")
		if err == nil {
			err = syscall.Exec(unshare, append([]string{unshare, "--mount"}, os.Args...), append(os.Environ(), variable+"=apart"))
		}
		fmt.Fprintln(os.Stderr, "unshare:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "mailbag-powerloss-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	boot = filepath.Join(dir, "boot_id")
	reboot()
	if out, err := exec.Command("mount", "--bind", boot, bootID).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "mount: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// reboot has the machine booted anew, for the programs that are started from now on.
func reboot() {
	if err := os.WriteFile(boot, []byte(crand.Text()+"\n"), 0o644); err != nil {
		panic(err)
	}
}

// chance is that of a test.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	t.Logf("the power fails %d times; -seed %d", *cuts, *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}

// A load is what goes on until the power fails. What answers nothing then goes on no more.
type load struct {
	over chan struct{}
	all  sync.WaitGroup
}

// keep does something again and again, after a moment where it could not be done.
func (l *load) keep(doing func() error) {
	l.all.Go(func() {
		for {
			select {
			case <-l.over:
				return
			default:
			}
			if err := doing(); err != nil {
				select {
				case <-l.over:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	})
}

func (l *load) end() {
	close(l.over)
	l.all.Wait()
}

// wrong reports what is not as it was answered.
func wrong(t *testing.T, of string, wrong []string) {
	t.Helper()
	for i, w := range wrong {
		if i == 10 {
			t.Errorf("and %d more", len(wrong)-i)
			break
		}
		t.Error(of + w)
	}
}

// failures counts as many as were asked for, and goes on where some of what is to be shown has not happened at all yet.
func failures(shown func() bool) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := 0; i < *cuts || i < 20**cuts && !shown(); i++ {
			if !yield(i) {
				return
			}
		}
	}
}

// shows tells that something happened at all.
func shows(t *testing.T, n int, what string) {
	t.Helper()
	t.Logf("%d %s", n, what)
	if n == 0 {
		t.Errorf("no %s; the test shows nothing", what)
	}
}

// progress says now and then how far a long run is.
func progress(t *testing.T, failures int) {
	t.Helper()
	if failures%20 == 0 {
		t.Logf("the power failed %d times", failures)
	}
}
