package exim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// The protocol of mailbag-eximd: a connection has one request, which is a verb and queue IDs, each on a line, and an empty line
// behind them. The answer is lines of JSON. The last one has an end or an error; without it the answer was cut off.
const (
	maxIDs      = 1000 // of a request
	maxVerb     = 32   // octets of a line
	dialTime    = 5 * time.Second
	replyTime   = 5 * time.Minute // for the next line of an answer
	maxAnswer   = 64 << 20        // octets of a line: one message with all its recipients
	requestTime = 10 * time.Second
)

// A reply is one line of an answer.
type reply struct {
	Entry    *mta.Entry    `json:"entry,omitempty"`
	ID       string        `json:"id,omitempty"`
	Identity *mta.Identity `json:"identity,omitempty"`
	End      bool          `json:"end,omitempty"`
	Error    string        `json:"error,omitempty"`
	Cause    string        `json:"cause,omitempty"` // of causes
}

// causes are the errors by which callers find another way, and their names in an answer.
var causes = map[string]error{"missing": mta.ErrMissing, "broken": mta.ErrBroken, "truncated": mta.ErrTruncated}

// A remoteError is one that mailbag-eximd told.
type remoteError struct {
	text  string
	cause error
}

func (e remoteError) Error() string { return e.text }
func (e remoteError) Unwrap() error { return e.cause }

// A helper is mailbag-eximd as those see it who ask it.
type helper struct{ socket string }

func (in Instance) helper() helper {
	if in.Socket == "" {
		return helper{DefaultSocket}
	}
	return helper{in.Socket}
}

// ask makes a request and returns the answers, the last of which is an error unless the answer is whole.
func (h helper) ask(ctx context.Context, verb string, ids []string) iter.Seq2[reply, error] {
	return func(yield func(reply, error) bool) {
		conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "unix", h.socket)
		if err != nil {
			yield(reply{}, fmt.Errorf("%w: mailbag-eximd does not answer; see that mailbag-eximd.socket runs, and be root or the user mailbag: %w", mta.ErrUnreachable, err))
			return
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		// A request that is refused before its end has its answer all the same.
		_, written := io.WriteString(conn, verb+"\n"+strings.Join(append(ids[:len(ids):len(ids)], ""), "\n")+"\n")
		in := bufio.NewScanner(conn)
		in.Buffer(nil, maxAnswer)
		for conn.SetReadDeadline(time.Now().Add(replyTime)) == nil && in.Scan() {
			var a reply
			if err := json.Unmarshal(in.Bytes(), &a); err != nil {
				yield(reply{}, fmt.Errorf("mailbag-eximd answered what cannot be understood; is it of the same version? %w", err))
				return
			}
			switch {
			case a.End:
				return
			case a.Error != "":
				yield(reply{}, remoteError{a.Error, causes[a.Cause]})
				return
			case !yield(a, nil):
				return
			}
		}
		yield(reply{}, errors.Join(fmt.Errorf("%w: mailbag-eximd broke off", mta.ErrTruncated), written, in.Err(), ctx.Err()))
	}
}

// do has something done to messages, however many.
func (h helper) do(ctx context.Context, verb string, ids []string) error {
	_, err := h.ids(ctx, verb, ids)
	return err
}

// ids are those with which something is answered.
func (h helper) ids(ctx context.Context, verb string, ids []string) ([]string, error) {
	var all []string
	for {
		n := min(len(ids), maxIDs)
		for a, err := range h.ask(ctx, verb, ids[:n]) {
			if err != nil {
				return nil, err
			}
			all = append(all, a.ID)
		}
		if ids = ids[n:]; len(ids) == 0 {
			return all, nil
		}
	}
}

// Queue is that of an Instance.
func (h helper) Queue(ctx context.Context) iter.Seq2[mta.Entry, error] {
	return func(yield func(mta.Entry, error) bool) {
		for a, err := range h.ask(ctx, "list", nil) {
			switch {
			case err != nil:
				yield(mta.Entry{}, err)
				return
			case a.Entry == nil:
				continue
			case !yield(*a.Entry, nil):
				return
			}
		}
	}
}

// Identity is that of an Instance.
func (h helper) Identity(ctx context.Context) (id mta.Identity, err error) {
	for a, err := range h.ask(ctx, "identity", nil) {
		switch {
		case errors.Is(err, mta.ErrTruncated):
			return mta.Identity{}, fmt.Errorf("%w: %w", mta.ErrUnreachable, err)
		case err != nil:
			return mta.Identity{}, err
		case a.Identity != nil:
			id = *a.Identity
		}
	}
	return id, nil
}
