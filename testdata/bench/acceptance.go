package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

const (
	sessions = 20
	messages = 1000 // of 4 kB, in each round
	rounds   = 24
)

// acceptance is the rate at which a Postfix accepts mail for a backup domain with mailbag beside it,
// against the same Postfix with the domain in its own tables. Both deliver to the same server while
// they accept. They take turns in changing order, because a machine's speed changes while one looks;
// only the two rates of one round are compared. Each begins with empty queues.
func acceptance(bin, dir string) (err error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return err
	}
	customer := fmt.Sprintf("127.0.0.1:%d", port)
	sink := exec.Command("smtp-sink", "-u", "postfix", customer, "200")
	if err := sink.Start(); err != nil {
		return err
	}
	defer func() {
		sink.Process.Kill()
		sink.Wait()
	}()
	plain, err := newPostfix(filepath.Join(dir, "plain"), map[string]string{
		"relay_domains":  "acme.example",
		"transport_maps": fmt.Sprintf("inline:{ { acme.example = relay:[127.0.0.1]:%d } }", port),
	})
	if err != nil {
		return err
	}
	wired, err := newPostfix(filepath.Join(dir, "wired"), nil)
	if err != nil {
		return err
	}
	account := []string{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--host", customer}
	return beside(bin, dir, wired, [][]string{account}, func(*service.Service) (err error) {
		both := []*postfixtest.Instance{plain, wired}
		for _, postfix := range both {
			if err := postfix.Start(); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, postfix.Stop()) }()
		}
		var without, with, ratio []float64
		for round := range rounds + 1 {
			rates := map[*postfixtest.Instance]float64{}
			for _, postfix := range both {
				if rates[postfix], err = rate(postfix); err != nil {
					return err
				}
			}
			if round > 0 { // the first warms up
				without, with = append(without, rates[plain]), append(with, rates[wired])
				ratio = append(ratio, rates[wired]/rates[plain])
			}
			slices.Reverse(both)
		}
		fmt.Printf("Postfix accepts %.0f messages/s in %d sessions without mailbag, %.0f with it (medians of %d rounds)\n",
			median(without), sessions, median(with), rounds)
		atLeast("acceptance with mailbag / without", median(ratio), 0.95, "")
		return nil
	})
}

func newPostfix(dir string, settings map[string]string) (*postfixtest.Instance, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return postfixtest.New(dir, postfixtest.Config{Main: settings})
}

// rate has the instance accept one round of messages, and waits until they have left its queue.
func rate(postfix *postfixtest.Instance) (perSecond float64, err error) {
	begun := time.Now()
	out, err := exec.Command("smtp-source", "-s", strconv.Itoa(sessions), "-m", strconv.Itoa(messages), "-l", "4096",
		"-f", "x@elsewhere.example", "-t", "a@acme.example", postfix.Addr()).CombinedOutput()
	took := time.Since(begun)
	if err != nil {
		return 0, fmt.Errorf("smtp-source: %w: %s", err, out)
	}
	return messages / took.Seconds(), postfix.WaitQueue(time.Minute, "the queue is empty", func(queue []postfixtest.Entry) bool {
		return len(queue) == 0
	})
}

func median(list []float64) float64 {
	slices.Sort(list)
	return (list[len(list)/2] + list[(len(list)-1)/2]) / 2
}
