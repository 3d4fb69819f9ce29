package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	eximtest "mailbag/testdata/exim"
	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

const (
	turnRounds = 3
	runners    = 20
)

// eximTurns is how fast Exim delivers what it held when a turn begins, all that a turn is included, against as many queue
// runners of an Exim that has the same mail deferred for the same server.
func eximTurns(bin, dir string) error {
	p := path{extensions: withChunking, line: peer.Line{}, size: 4096}
	const number = 200
	server, err := newCustomer(p.extensions...)
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
	held, err := newExim(filepath.Join(dir, "exim"), eximtest.Config{})
	if err != nil {
		return err
	}
	defer held.Close()
	return beside(bin, dir, held, [][]string{fetched(server.Addr())}, func(s *service.Service) (err error) {
		if err := errors.Join(s.Turnd.Start(), held.Start()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Turnd.Stop()) }()
		rate := func(mta mtatest.Instance, start func() error) (float64, error) {
			if err := p.hold(mta, number); err != nil {
				return 0, err
			}
			rate, _, err := server.takes(number, start)
			if err != nil {
				return 0, err
			}
			return rate, postfixtest.Wait(time.Minute, "Exim to have nothing to do", func() bool { return !mta.Busy() })
		}
		var ratios, turns, runs []float64
		before, err := usedBy(s.Turnd.PID())
		if err != nil {
			return err
		}
		for range turnRounds {
			run, err := rate(plain, func() error { return runQueue(plain) })
			if err != nil {
				return fmt.Errorf("exim alone: %w", err)
			}
			turn, err := rate(held, func() error {
				_, _, err := s.Mailbag("flush", "acme")
				return err
			})
			if err != nil {
				return err
			}
			ratios, turns, runs = append(ratios, turn/run), append(turns, turn), append(runs, run)
		}
		after, err := usedBy(s.Turnd.PID())
		if err != nil {
			return err
		}
		fmt.Printf("no delay: a turn delivers %.0f messages/s, %d runners of Exim %.0f\n", median(turns), runners, median(runs))
		atLeast(fmt.Sprintf("no delay: a turn / Exim, %d runners", runners), median(ratios), 0.8, "")
		atMost("CPU time of mailbag-turnd for a message", (after-before)/(turnRounds*number), 1, " ms")
		return nil
	})
}

// runQueue starts the runners, which end with the queue.
func runQueue(in *eximtest.Instance) error {
	for range runners {
		runner := in.Command("/usr/sbin/exim4", "-qf")
		if err := runner.Start(); err != nil {
			return err
		}
		go func() { _ = runner.Wait() }()
	}
	return nil
}
