package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

// A shape is how messages come.
type shape struct {
	each int    // to a connection
	to   string // the recipient's domain
}

func (s shape) String() string { return fmt.Sprintf("%d to a connection, %s", s.each, s.to) }

// A variant is an MTA with something beside it.
type variant struct {
	name    string
	against *variant // what its runs are compared with, if anything
	lot     int      // messages in a run, of 4 kB
	// up makes its MTA, which delivers to the port, and runs measure.
	up func(v *variant, bin, dir string, port int, measure func() error) error

	mta      mtatest.Instance
	discard  func() error     // throws away what it holds; nil: it holds nothing
	accounts []string         // whose mail they are
	service  *service.Service // nil without mailbag
	runs     map[shape][]run  // in the order of the rounds
	sent     int
}

// A run is how a variant took one lot of messages.
type run struct {
	rate    float64 // accepted a second
	idle    float64 // part of the machine while they were accepted
	machine float64 // CPU milliseconds of the whole machine for each, until all had left; others' work is in it
	policyd float64 // likewise, those of mailbag-policyd
	commits float64 // of the ledger, for each
}

// sessions bring a variant's messages at once. Debian's Exim takes no more than 20.
const sessions = 20

// beside runs measure while the variant is up.
func (v *variant) beside(bin, dir string, port int, measure func() error) error {
	v.runs = map[shape][]run{}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return v.up(v, bin, dir, port, func() (err error) {
		if err := v.mta.Start(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.mta.Stop()) }()
		return measure()
	})
}

// run has the variant accept its messages, so many to a connection. It begins and ends with an empty queue.
func (v *variant) run(s shape) (run, error) {
	before, err := v.spent()
	if err != nil {
		return run{}, err
	}
	resting, err := rested()
	if err != nil {
		return run{}, err
	}
	begun := time.Now()
	if err := v.send(v.lot, sessions, s); err != nil {
		return run{}, err
	}
	took := time.Since(begun)
	idle, err := restedSince(resting)
	if err != nil {
		return run{}, err
	}
	if err := postfixtest.Wait("the messages' deliveries", func() bool { return !v.mta.Busy() }); err != nil {
		return run{}, err
	}
	after, err := v.spent()
	if err != nil {
		return run{}, err
	}
	n := float64(v.lot)
	return run{
		rate:    n / took.Seconds(),
		idle:    idle / float64(runtime.NumCPU()) / float64(took.Milliseconds()),
		machine: (after.machine - before.machine) / n,
		policyd: (after.policyd - before.policyd) / n,
		commits: (after.commits - before.commits) / n,
	}, v.empty()
}

// empty sees that nothing waits in the MTA.
func (v *variant) empty() error {
	if v.discard != nil {
		if err := v.discard(); err != nil {
			return err
		}
	}
	return v.mta.WaitQueue("the queue is empty", func(queue []postfixtest.Entry) bool { return len(queue) == 0 })
}

// spent is what all runs have cost so far.
func (v *variant) spent() (total run, err error) {
	machine, err := busy()
	if err != nil || v.service == nil {
		return run{machine: machine}, err
	}
	policyd, err := usedBy(v.service.PID())
	if err != nil {
		return run{}, err
	}
	commits, err := v.service.Metric("mailbag_ledger_commits_total")
	return run{machine: machine, policyd: policyd, commits: commits}, err
}

// send has n messages accepted in so many sessions at once, each of them one connection after another.
func (v *variant) send(n, sessions int, s shape) error {
	v.sent += n
	var taken atomic.Int64
	errs := make(chan error, sessions)
	for range sessions {
		go func() {
			var err error
			for err == nil && taken.Add(int64(s.each)) <= int64(n) {
				err = deliver4kB(v.mta.Addr(), s)
			}
			errs <- err
		}()
	}
	var err error
	for range sessions {
		err = errors.Join(err, <-errs)
	}
	return err
}

var content = []byte("From: somebody@elsewhere.example\r\nSubject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 75)+"\r\n", 52))

// deliver4kB has as many messages accepted over one connection as the shape says.
func deliver4kB(addr string, s shape) error {
	message := postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@" + s.to}, Data: content}
	c, err := postfixtest.Dial(addr, "")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Say("EHLO elsewhere.example"); err != nil {
		return err
	}
	for range s.each {
		got, err := c.Send(message)
		if err == nil && !got.Accepted() {
			err = fmt.Errorf("a message is not accepted: %+v", got)
		}
		if err != nil {
			return err
		}
	}
	_, err = c.Write([]byte("QUIT\r\n")) // Exim takes 200 ms for its answer
	return err
}

// ratios are the variant's rates as parts of the rates that the one it is compared with had in the same rounds.
func (v *variant) ratios(s shape) []float64 {
	var list []float64
	for i, r := range v.runs[s] {
		list = append(list, r.rate/v.against.runs[s][i].rate)
	}
	return list
}

// counted makes sure that mailbag, if it is there, has counted what it was measured with.
func (v *variant) counted() error {
	if v.service == nil {
		return nil
	}
	counted := 0
	for _, account := range v.accounts {
		list, _, err := v.service.Mailbag("usage", account, "--messages-csv")
		if err != nil {
			return err
		}
		counted += strings.Count(list, "\n") - 1 // without its heading
	}
	if counted != v.sent {
		return fmt.Errorf("%s: %d messages were accepted, and %d counted", v.name, v.sent, counted)
	}
	return nil
}
