package powerloss

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"mailbag/testdata/blackout"
)

var (
	cuts = flag.Int("cuts", 5, "how many times the power fails in each test")
	seed = flag.Uint64("seed", rand.Uint64(), "of what chance decides")
)

// binaries is where TestMain built the programs under test.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if blackout.Available() != nil {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "mailbag-powerloss-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	if out, err := exec.Command("go", "build", "-o", dir, "mailbag/cmd/...").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
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
