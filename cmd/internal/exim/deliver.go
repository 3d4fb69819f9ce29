package exim

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"mailbag/cmd/internal/mta"
)

const (
	// sideBySide is how many processes deliver for one destination, as many as Postfix has.
	sideBySide = 20
	// An Exim delivers one message after the other. To start it costs as much as to deliver two.
	fewest, most = 10, 20
	// arguments is how many IDs a command gets that does not deliver.
	arguments = 1000
)

// Release starts deliveries of these messages, at most sideBySide at a time, and does not wait for them. They go on when this
// process ends. Exim would thaw one that is frozen, so that is left out.
func (in Instance) Release(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	if !in.privileged() {
		return in.helper().do(ctx, "release", ids)
	}
	s, err := in.spool(ctx)
	if err != nil {
		return fmt.Errorf("cannot release messages: %w", err)
	}
	found, err := s.byQueue(ids)
	if err != nil {
		return fmt.Errorf("cannot release messages: %w", err)
	}
	for queue, some := range found {
		share := max(fewest, (len(some)+sideBySide-1)/sideBySide)
		for share := range slices.Chunk(some, share) {
			cmd, err := in.delivery(queue, share)
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return fmt.Errorf("cannot release messages: %w", err)
			}
			go cmd.Wait() // the deliveries are Exim's own, and nobody is told how they went
		}
	}
	return nil
}

// delivery is the command that delivers messages of a queue whatever the time of their next retry.
func (in Instance) delivery(queue string, ids []string) (*exec.Cmd, error) {
	cmd, err := in.command(context.Background(), onMessages(queue, "-M", ids)...)
	if err == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt at the terminal is not meant for it
	}
	return cmd, err
}

// onMessages are the arguments of an action on messages of a queue.
func onMessages(queue, action string, ids []string) []string {
	var args []string
	if queue != "" {
		args = append(args, "-qG"+queue)
	}
	return append(append(args, action), ids...)
}

// act has Exim do something with messages that it does not deliver. One that is gone, or in delivery, is none of the errors:
// of these Exim speaks on its standard output.
func (in Instance) act(ctx context.Context, ids []string, args ...string) error {
	for some := range slices.Chunk(ids, arguments) {
		_, err := in.run(ctx, nil, append(slices.Clone(args), some...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Exited() && errors.Is(err, errNoReason) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Hold moves messages into the queue that no queue run of Exim touches. One that is frozen waits for the operator, and stays.
func (in Instance) Hold(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	if !in.privileged() {
		return in.helper().do(ctx, "hold", ids)
	}
	_, err := in.move(ctx, ids, "", heldQueue)
	if err != nil {
		return fmt.Errorf("cannot hold messages: %w", err)
	}
	return nil
}

// Unhold moves messages to Exim's default queue, and delivers them.
func (in Instance) Unhold(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	still, err := in.unhold(ctx, ids)
	if err != nil {
		return err
	}
	return in.Release(ctx, without(ids, still)...)
}

// unhold moves messages to Exim's default queue, and returns those that are held still, because they are in delivery.
func (in Instance) unhold(ctx context.Context, ids []string) ([]string, error) {
	if !in.privileged() {
		return in.helper().ids(ctx, "unhold", ids)
	}
	still, err := in.move(ctx, ids, heldQueue, "")
	if err != nil {
		return nil, fmt.Errorf("cannot take messages off hold: %w", err)
	}
	return still, nil
}

// move moves messages from one queue to another, and returns those that stay, because they are in delivery.
func (in Instance) move(ctx context.Context, ids []string, from, to string) ([]string, error) {
	s, err := in.spool(ctx)
	if err != nil {
		return nil, err
	}
	found, err := s.byQueue(ids)
	if err == nil {
		err = in.act(ctx, found[from], onMessages(from, "-MG", []string{to})...)
	}
	if err == nil {
		found, err = s.byQueue(ids)
	}
	return found[from], err
}

const (
	rerouteWithin = 10 * time.Second
	rerouteLook   = 500 * time.Millisecond
)

// Reroute takes messages out of the held queue and delivers them. Exim looks their way up at each delivery, so that only those that
// were in delivery all the time are still on their former one.
func (in Instance) Reroute(ctx context.Context, r mta.Reroute, left func(messages int)) ([]string, error) {
	if err := checkIDs(r.IDs); err != nil {
		return nil, err
	}
	for held, deadline := r.IDs, time.Now().Add(rerouteWithin); ; {
		still, err := in.unhold(ctx, held)
		if err != nil {
			return nil, err
		}
		if err := in.Release(ctx, without(held, still)...); err != nil {
			return nil, err
		}
		if held = still; len(held) == 0 || time.Now().After(deadline) {
			return held, nil
		}
		left(len(held))
		select {
		case <-ctx.Done():
			return held, ctx.Err()
		case <-time.After(rerouteLook):
		}
	}
}

// returning is how many processes make returns side by side; they wait for nobody.
const returning = 4

// Return gives messages back to their senders. They leave the held queue first: what Exim makes of a message, the notification too,
// is in that message's queue. It returns when that is done, but for messages that were in delivery.
func (in Instance) Return(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil || len(ids) == 0 {
		return err
	}
	if !in.privileged() {
		return in.helper().do(ctx, "return", ids)
	}
	if _, err := in.unhold(ctx, ids); err != nil {
		return fmt.Errorf("cannot return messages: %w", err)
	}
	s, err := in.spool(ctx)
	if err != nil {
		return fmt.Errorf("cannot return messages: %w", err)
	}
	found, err := s.byQueue(ids)
	if err != nil {
		return fmt.Errorf("cannot return messages: %w", err)
	}
	shares := slices.Collect(slices.Chunk(found[""], most))
	errs := make([]error, len(shares))
	var work sync.WaitGroup
	places := make(chan struct{}, returning)
	for i, share := range shares {
		places <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		work.Go(func() {
			defer func() { <-places }()
			errs[i] = in.act(context.WithoutCancel(ctx), share, "-Mg") // to its end: it may be in the middle of a message
		})
	}
	work.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return fmt.Errorf("cannot return messages: %w", err)
	}
	return nil
}
