package release

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// placeholder stands for the queue ID in a template.
const placeholder = "{id}"

// A Command releases by running a program for each message. Its zero value does not work; see [ParseCommand].
type Command struct {
	words []string
}

// ParseCommand reads a template: a program and its arguments, separated by spaces, in which {id} stands for
// the queue ID, for example "exim4 -qGmailbag -M {id}". No shell reads it, so there are no quotes.
func ParseCommand(template string) (Command, error) {
	words := strings.Fields(template)
	switch {
	case len(words) == 0:
		return Command{}, errors.New("the command that releases a message is empty")
	case strings.Contains(words[0], placeholder):
		return Command{}, fmt.Errorf("the command %q has %s in place of a program", template, placeholder)
	case !strings.Contains(template, placeholder):
		return Command{}, fmt.Errorf("the command %q does not say where the queue ID goes: write %s there", template, placeholder)
	}
	return Command{words}, nil
}

const (
	// atOnce is how many programs run at a time, each one perhaps until its message is delivered: as many
	// as Postfix has deliveries to one account.
	atOnce = 20
	// perProgram is as long as Postfix waits for a message on a slow line, too.
	perProgram = time.Hour
	// lastWords is what a program has to end by itself, once nobody wants it any more. One that is killed
	// in the middle of a delivery may not write down that it was made.
	lastWords = 20 * time.Second
)

// Release runs the program for each of the messages and returns when all have ended, which for exim -M is
// when the messages are delivered. One that fails is told at the end and stops nothing: its message may be gone, and
// the others are being delivered. No more of them are started where one could not be, or once ctx is over.
func (c Command) Release(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil {
		return err
	}
	var running sync.WaitGroup
	var failed failures
	places := make(chan struct{}, atOnce)
	for _, id := range ids {
		places <- struct{}{}
		if ctx.Err() != nil || failed.forAll() {
			break
		}
		running.Go(func() {
			defer func() { <-places }()
			if err := c.run(ctx, id); err != nil {
				failed.add(fmt.Errorf("cannot release message %s: %w", id, err))
			}
		})
	}
	running.Wait()
	return errors.Join(failed.err(), ctx.Err())
}

// failures are those of programs that run side by side.
type failures struct {
	mu    sync.Mutex
	first error
	more  int
	all   bool
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = err
	} else {
		f.more++
	}
	var exit *exec.ExitError
	f.all = f.all || !errors.As(err, &exit)
}

// forAll reports whether one failed at something that the others would fail at as well: its exit status says something of
// its message, but that it does not start, or does not end in time, does not.
func (f *failures) forAll() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more > 0 {
		return fmt.Errorf("%w; and %d more", f.first, f.more)
	}
	return f.first
}

// Flush is not possible with a template for one message: the error is ErrNoSite.
func (c Command) Flush(_ context.Context, domain string) error {
	return fmt.Errorf("cannot flush %s: %w", domain, ErrNoSite)
}

func (c Command) run(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, perProgram)
	defer cancel()
	args := make([]string, len(c.words))
	for i, w := range c.words {
		args[i] = strings.ReplaceAll(w, placeholder, id)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return nil } // see lastWords
	cmd.WaitDelay = lastWords
	var said prefix
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // the latter left something running that could still write
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s was not waited for: %w", strings.Join(args, " "), ctx.Err())
	}
	return fmt.Errorf("%s failed (%w): %q", strings.Join(args, " "), err, strings.TrimSpace(string(said)))
}

// maxSaid is how much of a program's output is kept for an error, in octets.
const maxSaid = 400

// A prefix keeps the beginning of what is written to it.
type prefix []byte

func (p *prefix) Write(b []byte) (int, error) {
	*p = append(*p, b[:min(len(b), maxSaid-len(*p))]...)
	return len(b), nil
}
