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
	"regexp"
	"slices"
	"time"

	"mailbag/cmd/internal/mta"
)

// maxEntry bounds one message of the listing, in octets: 50,000 recipients with the longest addresses and reasons
// that Postfix keeps come to about half of it.
const maxEntry = 64 << 20

// Queue lists the queue, one entry in memory at a time. A listing that fails or ends early yields an error as its last
// element, so that it never looks like a shorter queue. Leaving the loop early ends the command.
func (in Instance) Queue(ctx context.Context) iter.Seq2[mta.Entry, error] {
	return func(yield func(mta.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		cmd, err := in.command(ctx, "postqueue", "-j")
		if err != nil {
			yield(mta.Entry{}, err)
			return
		}
		var diag bytes.Buffer
		cmd.Stderr = &diag
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			yield(mta.Entry{}, fmt.Errorf("cannot list the queue: %w", err))
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
			yield(mta.Entry{}, fmt.Errorf("cannot list the queue: %w", bad))
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
		if len(e.Recipients) > 0 && !e.OnHold {
			delete(missing, e.ID)
		}
	}
	return slices.Collect(maps.Keys(missing)), nil
}

// ReadQueue reads the output of postqueue -j (one JSON object a line). An error, mta.ErrTruncated among them, is the last
// element.
func ReadQueue(r io.Reader) iter.Seq2[mta.Entry, error] {
	return func(yield func(mta.Entry, error) bool) {
		b := bufio.NewReaderSize(r, 64<<10)
		for {
			line, err := entryLine(b)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(mta.Entry{}, err)
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
			return nil, fmt.Errorf("%w: its last line has no end", mta.ErrTruncated)
		default:
			return nil, fmt.Errorf("%w: %w", mta.ErrTruncated, err)
		}
	}
}

func parseEntry(line []byte) (mta.Entry, error) {
	var j struct {
		Queue      string          `json:"queue_name"`
		ID         string          `json:"queue_id"`
		Arrival    int64           `json:"arrival_time"`
		Size       int64           `json:"message_size"`
		Expiring   bool            `json:"forced_expire"`
		Sender     string          `json:"sender"`
		Recipients []mta.Recipient `json:"recipients"`
	}
	if err := json.Unmarshal(line, &j); err != nil {
		return mta.Entry{}, fmt.Errorf("an entry of the queue is not what postqueue -j prints: %w", err)
	}
	if !queueID.MatchString(j.ID) {
		return mta.Entry{}, fmt.Errorf("an entry of the queue has the impossible ID %q", j.ID)
	}
	if j.Sender == nullSender {
		j.Sender = ""
	}
	return mta.Entry{Queue: j.Queue, ID: j.ID, Arrival: time.Unix(j.Arrival, 0).UTC(), Size: j.Size, Sender: j.Sender,
		OnHold: j.Queue == "hold", Expiring: j.Expiring, Recipients: j.Recipients}, nil
}

// nullSender is how postqueue names it. An envelope has no sender without a domain besides (append_at_myorigin).
const nullSender = "MAILER-DAEMON"

// queueID covers Postfix's short (hexadecimal) and long IDs.
var queueID = regexp.MustCompile(`^[0-9A-Za-z]{5,32}$`)
