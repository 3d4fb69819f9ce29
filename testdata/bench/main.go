// Bench measures mailbag against what is there without it, both in one run on one machine, and
// prints ratios: a figure by itself tells more about the machine than about mailbag. With -dir on a
// tmpfs the disk has no part in them. What needs no Postfix is measured by Go's own benchmarks in the
// packages.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the programs")
	only := flag.String("only", "", "measure this alone; of the turns' paths one as turns/strangers")
	in := flag.String("dir", os.TempDir(), "directory to work in, on the disk that is to be measured")
	rounds := flag.Int("rounds", 12, "rounds of the acceptance")
	milter := flag.String("milter", "", "be a milter at this socket, for the acceptance")
	spin := flag.Duration("spin", 0, "CPU time that the milter uses on each message")
	policy := flag.String("policy", "", "be a policy service at this socket that lets everything in, for Exim's acceptance")
	flag.Parse()
	measure := func() error { return bench(*bin, *in, *only, *rounds) }
	if *milter != "" {
		measure = func() error { return serveMilter(*milter, *spin) }
	}
	if *policy != "" {
		measure = func() error { return servePolicy(*policy) }
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(bin, in, only string, rounds int) error {
	if err := postfixtest.Available(); err != nil {
		return fmt.Errorf("the bench needs a real Postfix: %w", err)
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(in, "mailbag-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix's own user has to get in
		return err
	}
	if bin, err = service.Programs(bin, dir); err != nil {
		return err
	}
	only, part, _ := strings.Cut(only, "/")
	for _, m := range []struct {
		name    string
		measure func(bin, dir string) error
	}{{"acceptance", acceptance(rounds)}, {"eximacceptance", eximAcceptance(rounds)}, {"commits", commits}, {"recorder", recorder}, {"memory", memory},
		{"mailboxes", mailboxes}, {"deliver", deliver}, {"idle", idle},
		{"turns", turns(part)}, {"eximturns", eximTurns}, {"eximqueue", eximQueue}, {"idleturns", idleTurns}, {"flood", flood}} {
		if only != "" && only != m.name {
			continue
		}
		own := filepath.Join(dir, m.name)
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		if err := m.measure(bin, own); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// beside runs measure with mailbag-policyd at dir, after the command line was run with each of
// commands.
func beside(bin, dir string, mta mtatest.Instance, commands [][]string, measure func(*service.Service) error) (err error) {
	s, err := service.New(bin, dir, mta)
	if err != nil {
		return err
	}
	for _, args := range commands {
		if _, _, err := s.Mailbag(args...); err != nil {
			return err
		}
	}
	if err := s.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if mta != nil {
		if err := s.Wire(); err != nil {
			return err
		}
	}
	return measure(s)
}

// atLeast and atMost print a figure with its goal.
func atLeast(what string, got, goal float64, unit string) {
	verdict(what, got, got >= goal, "≥", goal, unit)
}
func atMost(what string, got, goal float64, unit string) {
	verdict(what, got, got <= goal, "≤", goal, unit)
}

func verdict(what string, got float64, met bool, relation string, goal float64, unit string) {
	word := "met"
	if !met {
		word = "MISSED"
	}
	fmt.Printf("%-46s %8.2f%s  goal %s %g: %s\n", what, got, unit, relation, goal, word)
}
