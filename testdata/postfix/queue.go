package postfixtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Restless are the parameters of a Postfix that tries deferred mail again within seconds, and scans its queue all the
// time. A message is due a second before its time; one that its last delivery agent still has open by then is "skipped,
// still being delivered", which is for a minute and until new mail comes. Hence the backoff of not less than three seconds.
func Restless() map[string]string {
	return map[string]string{
		"queue_run_delay": "1s", "minimal_backoff_time": "3s", "maximal_backoff_time": "4s", "transport_retry_time": "1s",
	}
}

// Entry is one message in the queue, as postqueue -j shows it.
type Entry struct {
	Queue       string      `json:"queue_name"` // "active", "deferred", "hold", "incoming" or "maildrop"; an Exim's "held"
	ID          string      `json:"queue_id"`
	ArrivalTime int64       `json:"arrival_time"` // seconds since 1970, UTC
	Size        int64       `json:"message_size"` // octets
	Sender      string      `json:"sender"`
	Recipients  []Recipient `json:"recipients"`
}

// Waits reports whether the message waits for a turn, or for its next attempt.
func (e Entry) Waits() bool { return e.Queue == "deferred" || e.Queue == "held" }

// Recipient is one recipient that is still to be delivered.
type Recipient struct {
	Address     string `json:"address"`
	DelayReason string `json:"delay_reason"`
}

// looks is how often Queue looks for a moment in which no message moves.
const looks = 10

// Queue lists what waits in the queue of a running instance. A message that goes from one of Postfix's queues to another
// at that moment would be missing, or there twice; so it looks until two looks agree.
func (in *Instance) Queue() ([]Entry, error) {
	before, err := in.list()
	for range looks {
		now, failed := in.list()
		if failed != nil || err != nil {
			return nil, errors.Join(err, failed)
		}
		if slices.EqualFunc(before, now, func(a, b Entry) bool { return a.ID == b.ID && a.Queue == b.Queue }) {
			return now, nil
		}
		before = now
	}
	return before, nil
}

func (in *Instance) list() ([]Entry, error) {
	text, err := in.run("postqueue", "-j")
	if err != nil {
		return nil, err
	}
	var all []Entry
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var e Entry
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("cannot read the output of postqueue -j: %w", err)
		}
		all = append(all, e)
	}
}

// Waiting counts the messages that are deferred. It counts files, for postqueue takes long with many.
func (in *Instance) Waiting() int {
	return in.count("deferred")
}

// Busy reports whether a message is under way.
func (in *Instance) Busy() bool { return in.count("incoming")+in.count("active") > 0 }

func (in *Instance) count(queue string) int {
	n := 0
	_ = filepath.WalkDir(filepath.Join(in.QueueDir(), queue), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() { // directories and files come and go
			n++
		}
		return nil
	})
	return n
}

// FlushQueue makes Postfix try every deferred message now.
func (in *Instance) FlushQueue() error {
	_, err := in.run("postqueue", "-f")
	return err
}

// WaitQueue waits until the queue is as holds wants it.
func (in *Instance) WaitQueue(what string, holds func([]Entry) bool) error {
	var last []Entry
	var failed error
	err := Wait(what, func() bool {
		last, failed = in.Queue()
		return failed == nil && holds(last)
	})
	if err != nil {
		return errors.Join(fmt.Errorf("%w; in the queue: %+v", err, last), failed)
	}
	return nil
}
