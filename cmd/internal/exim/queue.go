package exim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

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

// list calls each for all messages. What is no message of an Exim whose format is known is passed over, with a word in the log.
func (s spool) list(ctx context.Context, each func(mta.Entry) error) error {
	r := s.reader()
	over := map[string]bool{}
	for _, queue := range queues {
		err := s.files(ctx, queue, "-H", func(dir, id string) error {
			e, err := r.entry(queue, dir, id)
			switch {
			case errors.Is(err, fs.ErrNotExist): // delivered, or moved
				return nil
			case err != nil && unreadable(err):
				said.passedOver(over, filepath.Join(dir, id+"-H"), err)
				return nil
			case err != nil:
				return fmt.Errorf("%w: %w", mta.ErrTruncated, err)
			}
			return each(e)
		})
		if err != nil {
			return err
		}
	}
	said.forgetOthers(over)
	return nil
}

// said is what this process has said of files, which one listing after the other comes upon.
var said sayings

type sayings struct {
	mu    sync.Mutex
	files map[string]bool
}

// maxSayings bounds the files that are named. Of those beyond nothing is said.
const maxSayings = 100

// passedOver says once that a file is passed over, and notes it among those of this listing.
func (s *sayings) passedOver(over map[string]bool, file string, why error) {
	if len(over) == maxSayings {
		return
	}
	over[file] = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files[file] || len(s.files) >= maxSayings {
		return
	}
	if s.files == nil {
		s.files = map[string]bool{}
	}
	s.files[file] = true
	slog.Warn("a file of Exim's queue cannot be read and is passed over; look at it, and at what exim4 -Mvh says", "file", file, "error", why)
}

// forgetOthers forgets files that a whole listing did not come upon, so that they are named when they are there again.
func (s *sayings) forgetOthers(over map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.files, func(file string, _ bool) bool { return !over[file] })
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
	waiting, err := s.waiting(ids)
	if err != nil {
		return nil, fmt.Errorf("cannot look into the queue: %w", err)
	}
	for _, e := range waiting {
		there = append(there, e.ID)
	}
	return without(ids, there), nil
}

// waiting are those of the messages that wait to be delivered.
func (s spool) waiting(ids []string) ([]mta.Entry, error) {
	r := s.reader()
	var all []mta.Entry
	for _, id := range ids {
		e, err := r.message(id)
		switch {
		case errors.Is(err, fs.ErrNotExist), err != nil && unreadable(err):
		case err != nil:
			return nil, err
		case !e.OnHold && len(e.Recipients) > 0:
			all = append(all, e)
		}
	}
	return all, nil
}

// message reads a message wherever it is, once more where it moved meanwhile.
func (r *reader) message(id string) (e mta.Entry, err error) {
	for range 2 {
		queue, dir, ok := r.find(id)
		if !ok {
			return e, fs.ErrNotExist
		}
		if e, err = r.entry(queue, dir, id); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return e, err
}

// byQueue are the IDs of those that wait, by their queue.
func (s spool) byQueue(ids []string) (map[string][]string, error) {
	waiting, err := s.waiting(ids)
	found := map[string][]string{}
	for _, e := range waiting {
		found[queueOf(e)] = append(found[queueOf(e)], e.ID)
	}
	return found, err
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
