package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailbag/meter"
	rqlitetest "mailbag/testdata/rqlite"
)

const (
	recordFor = 5 * time.Second // that long messages come in one after another, on each connection
	kills     = 6               // of the leader
)

// recorder is how long messages wait until the ledger has them: one file, and three nodes of rqlite on this machine's one disk.
func recorder(bin, dir string) error {
	ctx := context.Background()
	if err := recorded(ctx, "SQLite", filepath.Join(dir, "mailbag.db"), dir, nil); err != nil {
		return err
	}
	if err := rqlitetest.Available(); err != nil {
		fmt.Println("not measured on rqlite:", err)
		return nil
	}
	nodes, err := rqlitetest.Start(ctx, dir, 3, rqlitetest.Options{})
	if err != nil {
		return err
	}
	defer nodes.Stop()
	return recorded(ctx, "rqlite", nodes.Address(0), dir, nodes)
}

// recorded measures a recorder on a new ledger, and where it is on nodes, how long one waits when their leader dies.
func recorded(ctx context.Context, engine, address, dir string, nodes *rqlitetest.Nodes) error {
	l, err := meter.Open(ctx, address, meter.Options{Create: true, Beside: filepath.Join(dir, engine)})
	if err != nil {
		return err
	}
	defer l.Close()
	a := meter.Account{Name: "acme", Mode: meter.ATRN, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, Domains: []string{"acme.example"}}
	if err := l.AddAccount(ctx, a, nil); err != nil {
		return err
	}
	directory, err := l.Load(ctx)
	if err != nil {
		return err
	}
	var commits atomic.Int64
	r := meter.NewRecorder(l, func(int, time.Duration, error) { commits.Add(1) })
	defer r.Close()
	s := &senders{r: r, account: directory.Account("acme")}
	for _, connections := range []int{1, 10, 100} {
		commits.Store(0)
		rate, took, err := s.send(connections, recordFor)
		if err != nil {
			return err
		}
		fmt.Printf("%s, %3d connections: %5.0f messages/s, p50 %6.2f ms, p95 %6.2f ms, p99 %6.2f ms, %4.1f messages a commit\n", engine, connections, rate,
			percentile(took, 50), percentile(took, 95), percentile(took, 99), float64(len(took))/float64(commits.Load()))
		if nodes != nil && connections == 100 {
			atLeast("messages/s on rqlite", rate, 1000, "")
			atMost("p95 on rqlite", percentile(took, 95), 60, " ms")
		}
	}
	if nodes == nil {
		return nil
	}
	return s.killed(ctx, nodes)
}

// percentile is that of a sorted list of durations, in milliseconds.
func percentile(took []time.Duration, n int) float64 {
	return took[(len(took)-1)*n/100].Seconds() * 1000
}

// senders have messages recorded.
type senders struct {
	r       *meter.Recorder
	account *meter.Account
	sent    atomic.Int64
}

func (s *senders) one() error {
	id := fmt.Sprintf("4bXyZ%08xzz", s.sent.Add(1))
	return s.r.Record(meter.Message{Instance: id + "@1882ab34cd56ef78", QueueID: id, Size: 4096, Client: "192.0.2.7", At: time.Now(),
		Accounts: []*meter.Account{s.account}, Domains: s.account.Domains}, func() error { return nil })
}

// send has so many send one message after another for a while. It returns how many were recorded a second, and how long each
// took, sorted.
func (s *senders) send(connections int, during time.Duration) (rate float64, took []time.Duration, err error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	begun := time.Now()
	for range connections {
		group.Go(func() {
			var own []time.Duration
			var failed error
			for failed == nil && time.Since(begun) < during {
				began := time.Now()
				failed = s.one()
				own = append(own, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			took, err = append(took, own...), errors.Join(err, failed)
		})
	}
	group.Wait()
	rate = float64(len(took)) / time.Since(begun).Seconds()
	slices.Sort(took)
	return rate, took, err
}

// killed kills the leader again and again while ten send: how long is it until the first of those that came later is recorded?
func (s *senders) killed(ctx context.Context, nodes *rqlitetest.Nodes) error {
	const connections = 10
	var waits []time.Duration
	for range kills {
		leader := -1
		for leader < 0 { // it may step down between two questions
			if err := nodes.Wait(ctx); err != nil {
				return err
			}
			leader = nodes.Leader()
		}
		var killed, again atomic.Int64 // Unix ns
		var group sync.WaitGroup
		errs := make(chan error, connections)
		for range connections {
			group.Go(func() {
				for again.Load() == 0 {
					began := time.Now().UnixNano()
					if err := s.one(); err != nil {
						errs <- err
						return
					}
					if at := killed.Load(); at > 0 && began > at {
						again.CompareAndSwap(0, time.Now().UnixNano())
					}
				}
			})
		}
		nodes.All[leader].Kill()
		killed.Store(time.Now().UnixNano())
		group.Wait()
		select {
		case err := <-errs:
			return fmt.Errorf("a sender hears of a leader's death: %w", err)
		default:
		}
		waits = append(waits, time.Duration(again.Load()-killed.Load()))
		if err := nodes.All[leader].Start(); err != nil {
			return err
		}
	}
	slices.Sort(waits)
	fmt.Printf("the leader was killed %d times; %d senders heard of no error, and messages were recorded again after %v\n", kills, connections, waits)
	atMost("writes again after the leader's death", waits[len(waits)-1].Seconds(), 1, " s")
	return nil
}
