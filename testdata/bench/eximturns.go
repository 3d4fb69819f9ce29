package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	eximtest "mailbag/testdata/exim"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

const (
	turnRounds = 5
	turnLot    = 400
	runners    = 20
)

// eximTurns is how fast Exim delivers what it held when a turn begins, all that a turn is included, against an Exim that
// has the same mail deferred for the same server: by as many queue runners, which get in each other's way, and by
// as many processes of which each is told what is its own.
func eximTurns(bin, dir string) error {
	server, err := newCustomer(withChunking...)
	if err != nil {
		return err
	}
	defer server.Stop()
	plain, err := newExim(filepath.Join(dir, "alone"), eximtest.Config{Main: "queue_only", Relays: map[string]string{"acme.example": server.Addr()}})
	if err != nil {
		return err
	}
	defer plain.Close()
	if err := plain.Start(); err != nil {
		return err
	}
	exim, err := newExim(filepath.Join(dir, "exim"), eximtest.Config{})
	if err != nil {
		return err
	}
	defer exim.Close()
	return beside(bin, dir, exim, [][]string{fetched(server.Addr())}, func(s *service.Service) (err error) {
		if err := errors.Join(s.Turnd.Start(), exim.Start()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Turnd.Stop()) }()
		before, err := usedBy(s.Turnd.PID())
		if err != nil {
			return err
		}
		var turns, runs, shares, toRuns, toShares []float64
		for round := range turnRounds {
			run, err := server.takesFrom(plain, func() error { return runQueue(plain) })
			if err != nil {
				return fmt.Errorf("runners: %w", err)
			}
			shared, err := server.takesFrom(plain, func() error { return shareQueue(plain) })
			if err != nil {
				return fmt.Errorf("shares: %w", err)
			}
			turn, err := server.takesFrom(exim, func() error {
				_, _, err := s.Mailbag("flush", "acme")
				return err
			})
			if err != nil {
				return fmt.Errorf("turn: %w", err)
			}
			// A turn that is open takes what comes.
			if err := postfixtest.Wait("the turn is over", func() bool {
				ended, _, err := s.Mailbag("turns", "acme")
				return err == nil && strings.Count(ended, "done") == round+1
			}); err != nil {
				return err
			}
			turns, runs, shares = append(turns, turn), append(runs, run), append(shares, shared)
			toRuns, toShares = append(toRuns, turn/run), append(toShares, turn/shared)
		}
		after, err := usedBy(s.Turnd.PID())
		if err != nil {
			return err
		}
		fmt.Printf("no delay: a turn delivers %.0f messages/s, Exim %.0f by %d runners and %.0f by as many shares\n",
			median(turns), median(runs), runners, median(shares))
		atLeast(fmt.Sprintf("no delay: a turn / Exim, %d runners", runners), median(toRuns), 0.8, "")
		atLeast(fmt.Sprintf("no delay: a turn / Exim, %d shares", runners), median(toShares), 0.8, "")
		atMost("CPU time of mailbag-turnd for a message", (after-before)/(turnRounds*turnLot), 1, " ms")
		return nil
	})
}

// takesFrom has an Exim hold a lot, and returns how many messages of it arrive a second once they are let go.
func (c *customer) takesFrom(exim mtatest.Instance, let func() error) (rate float64, err error) {
	if err := (path{size: 4096}).hold(exim, turnLot); err != nil {
		return 0, err
	}
	if rate, _, err = c.takes(turnLot, let); err != nil {
		return 0, err
	}
	return rate, postfixtest.Wait("Exim to have nothing to do", func() bool { return !exim.Busy() })
}

// runQueue starts the runners.
func runQueue(exim *eximtest.Instance) error {
	for range runners {
		if err := begin(exim, "-qf"); err != nil {
			return err
		}
	}
	return nil
}

// shareQueue starts processes that have the queue in equal parts.
func shareQueue(exim *eximtest.Instance) error {
	queue, err := exim.Queue()
	if err != nil {
		return err
	}
	parts := make([][]string, runners)
	for i, e := range queue {
		parts[i%runners] = append(parts[i%runners], e.ID)
	}
	for _, ids := range parts {
		if err := begin(exim, append([]string{"-M"}, ids...)...); err != nil {
			return err
		}
	}
	return nil
}

// begin starts an Exim that ends with its work.
func begin(exim *eximtest.Instance, args ...string) error {
	cmd := exim.Command("/usr/sbin/exim4", args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // what it could not deliver is missed by who counts
	return nil
}
