package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

const (
	sessions = 20
	none     = time.Duration(-1) // no milter
)

// A variant is a Postfix with something beside it.
type variant struct {
	name    string
	against *variant      // what its runs are compared with, if anything
	milter  time.Duration // CPU time that a milter in front takes for each message, or none
	mailbag bool
	lot     int // messages in a run, of 4 kB

	postfix *postfixtest.Instance
	service *service.Service // nil without mailbag
	runs    map[int][]run    // by messages to a connection, in the order of the rounds
	sent    int
}

// A run is how a variant took one lot of messages.
type run struct {
	rate    float64 // accepted a second
	idle    float64 // part of the machine while they were accepted
	machine float64 // CPU milliseconds of the whole machine for each, until all had left; others' work is in it
	policyd float64 // likewise, those of mailbag-policyd
	commits float64 // of the ledger, for each
}

// beside runs measure while the variant is up. It delivers to the port.
func (v *variant) beside(bin, dir string, port int, measure func() error) (err error) {
	// Else Postfix holds its clients back by a second each while deliveries are behind, in some runs and not in others.
	settings := map[string]string{"in_flow_delay": "0"}
	if !v.mailbag {
		settings["relay_domains"] = "acme.example"
		settings["transport_maps"] = fmt.Sprintf("inline:{ { acme.example = relay:[127.0.0.1]:%d } }", port)
	}
	if v.milter != none {
		settings["smtpd_milters"] = "unix:private/filter"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if v.postfix, err = newPostfix(filepath.Join(dir, "postfix"), settings); err != nil {
		return err
	}
	if v.milter != none {
		milter, err := startMilter(v.postfix.Private("filter"), v.milter)
		if err != nil {
			return err
		}
		defer end(milter)
	}
	v.runs = map[int][]run{}
	started := func() (err error) {
		if err := v.postfix.Start(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.postfix.Stop()) }()
		return measure()
	}
	if !v.mailbag {
		return started()
	}
	account := []string{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--host", fmt.Sprintf("127.0.0.1:%d", port)}
	return beside(bin, dir, v.postfix, [][]string{account}, func(s *service.Service) error {
		v.service = s
		return started()
	})
}

func newPostfix(dir string, settings map[string]string) (*postfixtest.Instance, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return postfixtest.New(dir, postfixtest.Config{Main: settings})
}

// run has the variant accept its messages, so many to a connection. It begins and ends with an empty queue.
func (v *variant) run(each int) (run, error) {
	before, err := v.spent()
	if err != nil {
		return run{}, err
	}
	resting, err := rested()
	if err != nil {
		return run{}, err
	}
	begun := time.Now()
	if err := v.send(v.lot, sessions, each); err != nil {
		return run{}, err
	}
	took := time.Since(begun)
	idle, err := restedSince(resting)
	if err != nil {
		return run{}, err
	}
	if err := v.drained(); err != nil {
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
	}, v.postfix.WaitQueue(time.Minute, "the queue is empty", func(queue []postfixtest.Entry) bool { return len(queue) == 0 })
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
func (v *variant) send(n, sessions, each int) error {
	v.sent += n
	var taken atomic.Int64
	errs := make(chan error, sessions)
	for range sessions {
		go func() {
			var err error
			for err == nil && taken.Add(int64(each)) <= int64(n) {
				err = deliver4kB(v.postfix.Addr(), each)
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

var message = postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example"},
	Data: []byte("From: somebody@elsewhere.example\r\nSubject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 75)+"\r\n", 52))}

// deliver4kB has n messages accepted over one connection.
func deliver4kB(addr string, n int) error {
	c, err := postfixtest.Dial(addr, "")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Say("EHLO elsewhere.example"); err != nil {
		return err
	}
	for range n {
		got, err := c.Send(message)
		if err == nil && !got.Accepted() {
			err = fmt.Errorf("a message is not accepted: %+v", got)
		}
		if err != nil {
			return err
		}
	}
	_, err = c.Say("QUIT")
	return err
}

// drained waits until nothing is on its way any more. It looks at Postfix's directories, for postqueue would use more CPU
// than what it waits for.
func (v *variant) drained() error {
	var failed error
	err := postfixtest.Wait(time.Minute, "the messages' deliveries", func() bool {
		for _, queue := range []string{"incoming", "active"} { // the way of a message: none is missed
			entries, err := os.ReadDir(filepath.Join(v.postfix.QueueDir(), queue))
			if failed = err; err != nil || len(entries) > 0 {
				return false
			}
		}
		return true
	})
	return errors.Join(err, failed)
}

// ratios are the variant's rates as parts of the rates that the one it is compared with had in the same rounds.
func (v *variant) ratios(each int) []float64 {
	var list []float64
	for i, r := range v.runs[each] {
		list = append(list, r.rate/v.against.runs[each][i].rate)
	}
	return list
}

// counted makes sure that mailbag, if it is there, has counted what it was measured with.
func (v *variant) counted() error {
	if v.service == nil {
		return nil
	}
	list, _, err := v.service.Mailbag("usage", "acme", "--messages-csv")
	if err != nil {
		return err
	}
	if n := strings.Count(list, "\n") - 1; n != v.sent { // without its heading
		return fmt.Errorf("%s: %d messages were accepted, and %d counted", v.name, v.sent, n)
	}
	return nil
}
