package exim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// spool finds Exim's spool directory.
func (in Instance) spool(ctx context.Context) (spool, error) {
	values, err := in.options(ctx, "spool_directory")
	if err != nil {
		return "", err
	}
	return spool(values["spool_directory"]), nil
}

// Queue lists the messages of the named queue, then those of Exim's default one. A message that is moved meanwhile may be
// missed, or be there twice.
func (in Instance) Queue(ctx context.Context) iter.Seq2[mta.Entry, error] {
	if !in.privileged() {
		return in.helper().Queue(ctx)
	}
	return func(yield func(mta.Entry, error) bool) {
		s, err := in.spool(ctx)
		if err == nil {
			err = s.list(ctx, func(e mta.Entry) error {
				if !yield(e, nil) {
					return errStop
				}
				return nil
			})
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(mta.Entry{}, fmt.Errorf("cannot list the queue: %w", err))
		}
	}
}

// list calls each for all messages. What is no message of an Exim whose format is known is passed over, and one such file named in the log.
func (s spool) list(ctx context.Context, each func(mta.Entry) error) error {
	r := s.reader()
	skipped, which, why := 0, "", error(nil)
	for _, queue := range queues {
		err := s.files(ctx, queue, "-H", func(dir, id string) error {
			e, err := r.entry(queue, dir, id)
			switch {
			case errors.Is(err, fs.ErrNotExist): // delivered, or moved
				return nil
			case err != nil:
				skipped, which, why = skipped+1, id, err
				return nil
			}
			return each(e)
		})
		if err != nil {
			return err
		}
	}
	if skipped > 0 {
		slog.Warn("files of Exim's queue cannot be read and are passed over; look at exim4 -Mvh", "files", skipped, "last", which, "error", why)
	}
	return nil
}

// Missing returns those of the messages that the queue does not have for delivery: they are gone, or frozen, or all their
// recipients have them.
func (in Instance) Missing(ctx context.Context, ids []string) ([]string, error) {
	if err := checkIDs(ids); err != nil {
		return nil, err
	}
	if !in.privileged() {
		return in.helper().ids(ctx, "missing", ids)
	}
	s, err := in.spool(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot look into the queue: %w", err)
	}
	var there []string
	for _, e := range s.waiting(ids) {
		there = append(there, e.ID)
	}
	return without(ids, there), nil
}

// waiting are those of the messages that wait to be delivered.
func (s spool) waiting(ids []string) []mta.Entry {
	r := s.reader()
	var all []mta.Entry
	for _, id := range ids {
		queue, dir, ok := s.find(id)
		if !ok {
			continue
		}
		if e, err := r.entry(queue, dir, id); err == nil && !e.OnHold && len(e.Recipients) > 0 {
			all = append(all, e)
		}
	}
	return all
}

// byQueue are the IDs of those that wait, by their queue.
func (s spool) byQueue(ids []string) map[string][]string {
	found := map[string][]string{}
	for _, e := range s.waiting(ids) {
		found[queueOf(e)] = append(found[queueOf(e)], e.ID)
	}
	return found
}

func queueOf(e mta.Entry) string {
	if e.Held {
		return heldQueue
	}
	return ""
}

// without returns those of the messages that are not among others.
func without(ids, others []string) []string {
	other := map[string]bool{}
	for _, id := range others {
		other[id] = true
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return other[id] })
}

// Unfinished lists the messages whose content came in, maybe not whole, and which Exim did not come to accept, because it was
// killed in between: it leaves their -D files behind.
func (in Instance) Unfinished(ctx context.Context) ([]string, error) {
	if !in.privileged() {
		return in.helper().ids(ctx, "unfinished", nil)
	}
	s, err := in.spool(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot look for messages that Exim did not come to accept: %w", err)
	}
	var all []string
	for _, queue := range queues {
		err := s.files(ctx, queue, "-D", func(dir, id string) error {
			if s.unfinished(dir, id) {
				all = append(all, id)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cannot look for messages that Exim did not come to accept: %w", err)
		}
	}
	return all, nil
}

// Try lists the beginning of the queue, and starts Exim, which reads its configuration.
func (in Instance) Try(ctx context.Context) error {
	if !in.privileged() {
		return in.helper().do(ctx, "try", nil)
	}
	s, err := in.spool(ctx)
	if err != nil {
		return err
	}
	if err := s.list(ctx, func(mta.Entry) error { return errStop }); err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("cannot list the queue: %w", err)
	}
	return nil
}

// Flush makes Exim try now what waits for one domain.
func (in Instance) Flush(ctx context.Context, domain string) error {
	if domain == "" || strings.ContainsAny(domain, "@ ") {
		return fmt.Errorf("%q is not a domain", domain)
	}
	ours := mta.NewDomains(domain)
	var ids []string
	for e, err := range in.Queue(ctx) {
		if err != nil {
			return fmt.Errorf("cannot flush %s: %w", domain, err)
		}
		if !e.OnHold && ours.Count(e) > 0 {
			ids = append(ids, e.ID)
		}
	}
	return in.Release(ctx, ids...)
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// checkIDs makes sure that nothing else than queue IDs gets to Exim.
func checkIDs(ids []string) error {
	for _, id := range ids {
		if !IsID(id) {
			return fmt.Errorf("%.40q is not a queue ID of Exim", id)
		}
	}
	return nil
}
