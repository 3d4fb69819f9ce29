package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	eximtest "mailbag/testdata/exim"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

// eximQueue is what a large number of held messages costs: Exim's queue runs, which have nothing to do with them, and
// mailbag's pass over the queue, in time and in memory.
func eximQueue(bin, dir string) error {
	const few, many = 1000, 100_000
	exim, err := newExim(filepath.Join(dir, "exim"), eximtest.Config{})
	if err != nil {
		return err
	}
	defer exim.Close()
	return beside(bin, dir, exim, [][]string{fetched("127.0.0.1:9")}, func(s *service.Service) error {
		if err := exim.Start(); err != nil {
			return err
		}
		if err := (path{size: 4096}).hold(exim, 1); err != nil {
			return err
		}
		if err := multiply(exim, 1, few); err != nil {
			return err
		}
		_, little, err := pass(s, few)
		if err != nil {
			return err
		}
		if err := multiply(exim, few, many); err != nil {
			return err
		}
		first, _, err := pass(s, many)
		if err != nil {
			return err
		}
		again, peak, err := pass(s, many)
		if err != nil {
			return err
		}
		fmt.Printf("%d held messages: the first pass over the queue, which notes them, takes %.1f s\n", many, first.Seconds())
		atMost("a pass when all are noted", again.Seconds(), 5, " s")
		fmt.Printf("mailbag-policyd takes %.0f MB at its peak, and %.0f MB with %d messages\n", peak, little, few)
		atMost("the difference", peak-little, 10, " MB")
		var runs []float64
		for range 5 {
			begun := time.Now()
			if out, err := exim.Command("/usr/sbin/exim4", "-q").CombinedOutput(); err != nil {
				return fmt.Errorf("exim4 -q: %w: %s", err, out)
			}
			runs = append(runs, time.Since(begun).Seconds())
		}
		atMost("a queue run of Exim beside them", median(runs), 0.2, " s")
		return nil
	})
}

// pass is how long after its start mailbag-policyd has compared the index of waiting mail with a queue of so many
// messages, and how much memory it took for that.
func pass(s *service.Service, messages int) (took time.Duration, peak float64, err error) {
	if err := s.Stop(); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := s.Start(); err != nil {
		return 0, 0, err
	}
	var ended float64
	if err := postfixtest.Wait("a pass over the queue", func() bool {
		ended, err = s.Metric("mailbag_queue_pass_timestamp_seconds")
		return err != nil || ended > 0
	}); err != nil {
		return 0, 0, err
	}
	queued, queuedErr := s.Metric("mailbag_queue_messages")
	_, peak, peakErr := megabytes(s.PID())
	if err := errors.Join(err, queuedErr, peakErr); err != nil {
		return 0, 0, err
	}
	if int(queued) != messages {
		return 0, 0, fmt.Errorf("%.0f messages are in the queue, not %d", queued, messages)
	}
	return time.Unix(0, int64(ended*1e9)).Sub(begun), peak, nil
}

// multiply makes more messages of a first one that is held, so that of from there are to. Accepting them would take much
// longer than what is to be measured.
func multiply(exim *eximtest.Instance, from, to int) error {
	const (
		queue = "/var/spool/exim4/mailbag/input"
		few   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	)
	headers, err := filepath.Glob(exim.Root(queue) + "/*-H")
	if err != nil || len(headers) == 0 { // split_spool_directory
		headers, err = filepath.Glob(exim.Root(queue) + "/?/*-H")
	}
	if err != nil || len(headers) == 0 {
		return errors.Join(err, errors.New("there is no held message"))
	}
	original := strings.TrimSuffix(filepath.Base(headers[0]), "-H")
	for _, suffix := range []string{"-D", "-H"} {
		file := strings.TrimSuffix(headers[0], "-H") + suffix
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		owner := st.Sys().(*syscall.Stat_t)
		for n := from; n < to; n++ {
			own := []byte(original) // its last letter of the time is that of a split directory; the process ID is what follows
			own[5] = few[n%len(few)]
			for i, left := 12, n; i > 6; i, left = i-1, left/len(few) {
				own[i] = few[left%len(few)]
			}
			dir := filepath.Dir(file)
			if filepath.Base(dir) == original[5:6] {
				dir = filepath.Join(filepath.Dir(dir), string(own[5]))
			}
			copied := filepath.Join(dir, string(own)+suffix)
			if err := errors.Join(
				os.MkdirAll(dir, 0o750), os.Chown(dir, int(owner.Uid), int(owner.Gid)),
				os.WriteFile(copied, bytes.ReplaceAll(text, []byte(original), own), 0o640), os.Chown(copied, int(owner.Uid), int(owner.Gid)),
			); err != nil {
				return err
			}
		}
	}
	return nil
}
