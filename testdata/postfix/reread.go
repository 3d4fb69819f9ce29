package postfixtest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rewriteAge is the age from which on trivial-rewrite(8) has served whoever it was started for. One that ends before counts
// as one that cannot start, and master(8) lets a minute pass before it starts another.
const rewriteAge = 2 * time.Second

// Reread makes Postfix look at its tables now. trivial-rewrite(8) looks every ten seconds and ends when one has changed; here
// it is ended, as postfix reload does it, and master(8) starts another for the next who asks. Whoever
// was asking asks again, so nobody hears of it. The other programs look before each connection that they take.
func (in *Instance) Reread() error {
	in.mu.Lock()
	m := in.master
	in.mu.Unlock()
	if m == nil {
		return nil // it reads them when it starts
	}
	all, err := rewriters(m.pid)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := Wait("trivial-rewrite to have served somebody", func() bool { return p.age() >= rewriteAge }); err != nil {
			return err
		}
		if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil && err != syscall.ESRCH {
			return fmt.Errorf("trivial-rewrite cannot be ended: %w", err)
		}
		if err := Wait("trivial-rewrite to end", p.ended); err != nil {
			return err
		}
	}
	return nil
}

// A rewriter is a process of trivial-rewrite(8).
type rewriter struct {
	pid     int
	started time.Duration // since boot
}

// rewriters are those that master(8) has started.
func rewriters(master int) ([]rewriter, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []rewriter
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		// The state, the parent, and, as the twentieth, the time of the start in ticks of 10 ms (proc(5)).
		before, behind, _ := bytes.Cut(text, []byte(" (trivial-rewrite) "))
		fields := strings.Fields(string(behind))
		if len(fields) < 20 || fields[0] == "Z" || fields[1] != strconv.Itoa(master) {
			continue
		}
		pid, err := strconv.Atoi(string(before))
		if err != nil {
			return nil, err
		}
		ticks, err := strconv.Atoi(fields[19])
		if err != nil {
			return nil, err
		}
		all = append(all, rewriter{pid, time.Duration(ticks) * 10 * time.Millisecond})
	}
	return all, nil
}

func (p rewriter) age() time.Duration {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	uptime, _, _ := strings.Cut(string(text), " ")
	seconds, err := strconv.ParseFloat(uptime, 64)
	if err != nil {
		return 0
	}
	return time.Duration(seconds*float64(time.Second)) - p.started
}

func (p rewriter) ended() bool { return syscall.Kill(p.pid, 0) != nil }
