package postfix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"mailbag/meter"
)

// An Entry is one message in the queue.
type Entry struct {
	Queue      string // "active", "deferred", "hold", "incoming" or "maildrop"
	ID         string
	Arrival    time.Time // UTC, to the second
	Size       int64     // octets, as Postfix counts them
	Sender     string    // "MAILER-DAEMON" for the null sender
	Expiring   bool      // postsuper -e was said
	Recipients []Recipient
}

// A Recipient is one to whom the message is still to be delivered.
type Recipient struct {
	Address string `json:"address"`
	Reason  string `json:"delay_reason"` // why it waits; empty before the first attempt
}

// Waiting is the entry as the ledger takes it. What is on hold (postsuper -h, a HOLD action, a milter's quarantine)
// waits for the operator and for none of its recipients: no release moves it.
func (e Entry) Waiting() meter.QueuedMessage {
	m := meter.QueuedMessage{ID: e.ID, Size: e.Size, Arrived: e.Arrival}
	if e.Queue == "hold" {
		return m
	}
	for _, r := range e.Recipients {
		m.Recipients = append(m.Recipients, r.Address)
	}
	return m
}

// maxEntry bounds one message of the listing, in octets: 50,000 recipients with the longest addresses and reasons
// that Postfix keeps come to about half of it.
const maxEntry = 64 << 20

// ErrTruncated means that a listing of the queue ended early. What was read until then is not the whole queue.
var ErrTruncated = errors.New("the listing of the queue is incomplete")

// Queue lists the queue, one entry in memory at a time. A listing that fails or ends early yields an error as its last
// element, so that it never looks like a shorter queue. Leaving the loop early ends the command.
func (in Instance) Queue(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		cmd, err := in.command(ctx, "postqueue", "-j")
		if err != nil {
			yield(Entry{}, err)
			return
		}
		var diag bytes.Buffer
		cmd.Stderr = &diag
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("cannot list the queue: %w", err))
			return
		}
		var bad error
		for e, err := range ReadQueue(out) {
			if err != nil {
				bad = err
				break
			}
			if !yield(e, nil) {
				cancel()
				_ = cmd.Wait() // ended by us
				return
			}
		}
		if bad != nil {
			cancel() // it may be blocked on a pipe that nobody reads
		}
		// A failure of the command explains a truncated listing, unless the failure is our cancel.
		if err := cmd.Wait(); err != nil && (bad == nil || diag.Len() > 0) {
			bad = failure(cmd, err, diag.String())
		}
		if bad != nil {
			yield(Entry{}, fmt.Errorf("cannot list the queue: %w", bad))
		}
	}
}

// Missing returns those of the messages that the queue does not have for delivery: they are gone, or on hold. A listing
// of a queue in motion can miss a message that moves just then.
func (in Instance) Missing(ctx context.Context, ids []string) ([]string, error) {
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	for e, err := range in.Queue(ctx) {
		if err != nil {
			return nil, err
		}
		// A file without recipients is a delivered message that is about to go.
		if len(e.Recipients) > 0 && e.Queue != "hold" {
			delete(missing, e.ID)
		}
	}
	return slices.Collect(maps.Keys(missing)), nil
}

// ReadQueue reads the output of postqueue -j (one JSON object a line). An error, ErrTruncated among them, is the last
// element.
func ReadQueue(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		b := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := entryLine(b)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			e, err := parseEntry(line)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// entryLine reads one line. io.EOF means a proper end.
func entryLine(b *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxEntry:
			return nil, fmt.Errorf("an entry of the queue is longer than %d octets", maxEntry)
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil, io.EOF
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: its last line has no end", ErrTruncated)
		default:
			return nil, fmt.Errorf("%w: %w", ErrTruncated, err)
		}
	}
}

func parseEntry(line []byte) (Entry, error) {
	var j struct {
		Queue      string      `json:"queue_name"`
		ID         string      `json:"queue_id"`
		Arrival    int64       `json:"arrival_time"`
		Size       int64       `json:"message_size"`
		Expiring   bool        `json:"forced_expire"`
		Sender     string      `json:"sender"`
		Recipients []Recipient `json:"recipients"`
	}
	if err := json.Unmarshal(line, &j); err != nil {
		return Entry{}, fmt.Errorf("an entry of the queue is not what postqueue -j prints: %w", err)
	}
	if !queueID.MatchString(j.ID) {
		return Entry{}, fmt.Errorf("an entry of the queue has the impossible ID %q", j.ID)
	}
	return Entry{j.Queue, j.ID, time.Unix(j.Arrival, 0).UTC(), j.Size, j.Sender, j.Expiring, j.Recipients}, nil
}

// queueID covers Postfix's short (hexadecimal) and long IDs.
var queueID = regexp.MustCompile(`^[0-9A-Za-z]{5,32}$`)

// Release makes Postfix try these messages now, each by its queue ID, and nothing else (postqueue -i). A message that
// is gone is no error. It stops at the first failure.
func (in Instance) Release(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if !queueID.MatchString(id) {
			return fmt.Errorf("%q is not a queue ID", id)
		}
		if _, err := in.run(ctx, "", "postqueue", "-i", id); err != nil {
			return fmt.Errorf("cannot release message %s: %w", id, err)
		}
	}
	return nil
}

// FlushSocket is the path of the socket on which flush(8) takes requests to release mail without a process for each.
// The group postdrop may connect to it.
func (in Instance) FlushSocket(ctx context.Context) (string, error) {
	dir, err := in.run(ctx, "", "postconf", "-xh", "queue_directory")
	if err != nil {
		return "", fmt.Errorf("cannot find the queue of Postfix: %w", err)
	}
	return filepath.Join(strings.TrimSpace(dir), "public", "flush"), nil
}

// Expire makes Postfix return these messages to their senders at the next attempt (postsuper -e). A message that is
// gone is no error. Needs root.
func (in Instance) Expire(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if !queueID.MatchString(id) {
			return fmt.Errorf("%q is not a queue ID", id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := in.run(ctx, strings.Join(ids, "\n")+"\n", "postsuper", "-e", "-"); err != nil {
		return fmt.Errorf("cannot expire messages: %w", err)
	}
	return nil
}

// Flush makes Postfix try the deferred mail of one domain now (postqueue -s), as far as its log of that domain goes.
func (in Instance) Flush(ctx context.Context, domain string) error {
	if domain == "" || strings.HasPrefix(domain, "-") {
		return fmt.Errorf("%q is not a domain", domain)
	}
	if _, err := in.run(ctx, "", "postqueue", "-s", domain); err != nil {
		return fmt.Errorf("cannot flush %s: %w", domain, err)
	}
	return nil
}
