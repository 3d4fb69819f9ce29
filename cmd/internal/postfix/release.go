package postfix

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"mailbag/turnd/release"
)

// Release makes Postfix try these messages now, each by its queue ID, and nothing else: through the socket of flush(8), or
// where that cannot be had by postqueue -i. A message that is gone is no error. It stops at the first failure.
func (in Instance) Release(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	r, err := in.releaser(ctx)
	if err != nil {
		return err
	}
	return r.Release(ctx, ids...)
}

// Flush makes Postfix try the deferred mail of one domain now, as far as its log of that domain goes: as Release does, or by
// postqueue -s.
func (in Instance) Flush(ctx context.Context, domain string) error {
	r, err := in.releaser(ctx)
	if err != nil {
		return err
	}
	return r.Flush(ctx, domain)
}

func (in Instance) releaser(ctx context.Context) (release.Postfix, error) {
	socket, err := in.FlushSocket(ctx)
	return release.Postfix{Socket: socket, Otherwise: postqueue(in)}, err
}

// spools are the queue directories that were found, by Postfix's configuration directory: turns release a few messages
// at a time, and a queue does not move under a running Postfix.
var spools sync.Map

// FlushSocket is the path of the socket on which flush(8) takes requests to release mail without a process for each.
// The group postdrop may connect to it.
func (in Instance) FlushSocket(ctx context.Context) (string, error) {
	if dir, ok := spools.Load(in.ConfigDir); ok {
		return filepath.Join(dir.(string), "public", "flush"), nil
	}
	out, err := in.run(ctx, "", "postconf", "-xh", "queue_directory")
	if err != nil {
		return "", fmt.Errorf("cannot find the queue of Postfix: %w", err)
	}
	dir := strings.TrimSpace(out)
	spools.Store(in.ConfigDir, dir)
	return filepath.Join(dir, "public", "flush"), nil
}

// A postqueue releases by postqueue(1), which any user may run.
type postqueue Instance

func (p postqueue) Release(ctx context.Context, ids ...string) error {
	for _, id := range ids {
		if _, err := Instance(p).run(ctx, "", "postqueue", "-i", id); err != nil {
			return fmt.Errorf("cannot release message %s: %w", id, err)
		}
	}
	return nil
}

func (p postqueue) Flush(ctx context.Context, domain string) error {
	if _, err := Instance(p).run(ctx, "", "postqueue", "-s", domain); err != nil {
		return fmt.Errorf("cannot flush %s: %w", domain, err)
	}
	return nil
}

// Return makes Postfix return these messages to their senders, and at once (postsuper -e and a release). Where only the
// release fails they are returned at the next attempt, as the error says. A message that is gone is no error. Needs root.
func (in Instance) Return(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	if _, err := in.run(ctx, strings.Join(ids, "\n")+"\n", "postsuper", "-e", "-"); err != nil {
		return fmt.Errorf("cannot expire messages: %w", err)
	}
	if err := in.Release(ctx, ids...); err != nil {
		return fmt.Errorf("they are returned at Postfix's next attempt; see that it runs (postfix start): %w", err)
	}
	return nil
}

func checkIDs(ids []string) error {
	for _, id := range ids {
		if !queueID.MatchString(id) {
			return fmt.Errorf("%q is not a queue ID", id)
		}
	}
	return nil
}

// nobodysID is a queue ID that no message has: Postfix's are longer.
const nobodysID = "00000"

// Try lists the beginning of the queue, and releases a message that is not there.
func (in Instance) Try(ctx context.Context) error {
	for _, err := range in.Queue(ctx) {
		if err != nil {
			return err
		}
		break
	}
	return in.Release(ctx, nobodysID)
}

// Hold has nothing to do: qmgr(8) tries none of what defer_transports names.
func (in Instance) Hold(context.Context, ...string) error { return nil }

// Unhold has nothing to do: it is the message's way that qmgr(8) looks at.
func (in Instance) Unhold(context.Context, ...string) error { return nil }

// Unfinished is nothing: what cleanup(8) did not come to accept is no message, and Postfix removes it.
func (in Instance) Unfinished(context.Context) ([]string, error) { return nil, nil }
