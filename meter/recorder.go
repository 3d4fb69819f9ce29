package meter

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// A Message is one that was accepted for one or more accounts.
type Message struct {
	Instance string // identifies the acceptance; begins with the queue ID and "@"
	QueueID  string
	Size     int64  // octets
	Client   string // IP address
	At       time.Time
	Accounts []*Account // without repeats
	Domains  []string   // of theirs among the recipients, without repeats; of an account without any here, all may be meant

	// Limits has what each account that takes no mail above its limit may use in a month, by its ID. The message that
	// reaches a limit is the last one; see [Tariff.Full].
	Limits map[int64]Usage

	// Fingerprint is what the sender's repetition of the message has in common with it, and no other
	// message has. The zero value is nobody's.
	Fingerprint Fingerprint
}

// SpoolInstance is the instance of a message whose queue ID no other message will have: Exim's.
func SpoolInstance(queueID string) string { return queueID + "@exim" }

// Fingerprint is a digest of envelope and content.
type Fingerprint [16]byte

// A message that comes alone is committed at once. Where messages come together they share commits as far as the disk asks
// for it: between the beginnings of two commits are, for each message of the first, share times what the disk took for it. On a
// disk that has each commit carry what comes within longest, for the MTA wants the disk too, and in memory nobody waits. Nor
// does anybody once enough have come, or as many as usually come in such a time: where that many senders wait one after another,
// no more will. Whether there are more is seen by waiting it out after so many commits that were sooner.
const (
	share   = 8
	longest = 20 * time.Millisecond
	enough  = 40
	sooner  = 16
)

// A Recorder writes accepted messages to the ledger, and has each answered once it is durable. Calls
// that come while a commit is under way share the next one, so that many connections cost one fsync.
//
// It counts a message if and only if its answer was given, also when the process is killed in between:
// what is on its way from one to the other stands in a file beside the ledger, see [underway].
type Recorder struct {
	ledger   *Ledger
	commit   func(batch int, took time.Duration, err error)
	underway *underway
	fence    fence // that of its batches, and whether it is to be burnt; for the loop alone
	spent    bool

	mu      sync.Mutex
	pending []*pending
	back    []entry // to be taken back with the next commit
	most    int     // are expected: with so many pending a commit does not wait for its turn
	closed  bool
	inside  sync.WaitGroup // calls of Record

	wake chan struct{} // holds one token while something is to be done
	many chan struct{} // and one since most were pending
	stop chan struct{}
	done sync.WaitGroup
}

type pending struct {
	message Message
	former  entry // the message that this one repeats; the zero entry where it is none
	result  chan error
}

// ErrLimit says that a message was not counted, for any of its accounts, because one of them is at its limit.
var ErrLimit = errors.New("the account's limit is reached")

// ErrClosed is what a closed Recorder answers.
var ErrClosed = errors.New("the recorder is closed")

// NewRecorder starts a recorder, and takes back what one before it counted and did not come to answer.
// commit, where it is not nil, is told of every commit: how many messages it held, how long it took,
// and how it ended.
func NewRecorder(l *Ledger, commit func(batch int, took time.Duration, err error)) *Recorder {
	if commit == nil {
		commit = func(int, time.Duration, error) {}
	}
	r := &Recorder{ledger: l, commit: commit, underway: newUnderway(l.opt.Beside + "-underway"), most: enough, wake: make(chan struct{}, 1), many: make(chan struct{}, 1), stop: make(chan struct{})}
	r.done.Go(r.run)
	return r
}

// Record counts the message for each of its accounts, notes it as waiting for those whose mail is held,
// and when all of that is durable, calls answer, which is to tell the MTA so, unless it is nil. Where answer fails,
// the message is taken back, and its error returned. Other errors come without a call of answer, and
// nothing was counted: [ErrUnavailable], [ErrClosed], [ErrLimit], and what is wrong with this message alone, such
// as an account that is not there any more.
func (r *Recorder) Record(m Message, answer func() error) error {
	if !r.enter() {
		return ErrClosed
	}
	defer r.inside.Done()
	place, former, err := r.underway.enter(&m)
	if err != nil {
		return unavailable(err)
	}
	if err := r.write(&pending{message: m, former: former, result: make(chan error, 1)}); err != nil {
		if errors.Is(err, errUnknown) { // it may be counted, or be before long
			r.takeBack(entry{place, m.Instance, m.Fingerprint})
		} else {
			r.underway.leave(place)
		}
		r.underway.doubt(former)
		return err
	}
	r.underway.leave(former.place)
	if answer != nil {
		if err = r.underway.answering(place); err == nil {
			err = answer()
		}
		if err != nil {
			r.takeBack(entry{place, m.Instance, m.Fingerprint})
			return err
		}
	}
	r.underway.leave(place)
	return nil
}

func (r *Recorder) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.inside.Add(1)
	return true
}

// write returns when the message is durable.
func (r *Recorder) write(p *pending) error {
	r.mu.Lock()
	r.pending = append(r.pending, p)
	if len(r.pending) == r.most {
		signal(r.many)
	}
	r.mu.Unlock()
	signal(r.wake)
	return <-p.result
}

// Unheard takes back a message whose answer was given, and of which it turned out that nobody had read it.
func (r *Recorder) Unheard(instance string) {
	if !r.enter() {
		return
	}
	defer r.inside.Done()
	// It left its place with the answer, and needs one again until it is taken back. Where there is none, a kill before
	// that leaves it counted.
	at, _, _ := r.underway.enter(&Message{Instance: instance, At: r.ledger.opt.Now()})
	r.takeBack(entry{place: at, instance: instance})
}

func (r *Recorder) takeBack(e entry) {
	r.mu.Lock()
	r.back = append(r.back, e)
	r.mu.Unlock()
	signal(r.wake)
}

// Close waits for the calls of Record that are under way, and ends the recorder.
func (r *Recorder) Close() {
	r.mu.Lock()
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return
	}
	r.inside.Wait()
	close(r.stop)
	r.done.Wait()
	r.underway.close()
}

// again is the pause after which is tried again what nobody waits for.
const again = time.Second

func (r *Recorder) run() {
	retry := time.NewTimer(0) // also for what the recorder before this one left
	defer retry.Stop()
	var next time.Time
	usual := enough // messages that come until a commit's turn
	early := 0      // commits since one that waited for its turn
	for open := true; open; {
		waited := false
		select {
		case <-r.wake:
			waited = r.gather(next)
		case <-retry.C:
		case <-r.stop:
			open = false
		}
		begun := time.Now()
		messages, disk, err := r.flush()
		next = begun.Add(min(time.Duration(messages)*share*disk, longest))
		if messages == 1 {
			next = begun // whoever sends one after another has waited for the disk already
		}
		early++
		switch {
		case waited: // a lull is no reason to believe that there are few
			early, usual = 0, (usual+messages)/2
		case messages > usual:
			usual = min(messages, enough)
		}
		if early < sooner {
			r.expect(usual)
		} else {
			r.expect(enough)
		}
		if err != nil {
			retry.Reset(again)
		}
	}
}

// expect sets with how many messages the next commits do not wait.
func (r *Recorder) expect(messages int) {
	r.mu.Lock()
	r.most = max(messages, 2)
	r.mu.Unlock()
}

// ready reports whether as many are pending as are expected.
func (r *Recorder) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending) >= r.most
}

// gather waits for the next commit's turn, and lets those join it who are ready. It reports whether that turn came, and not
// before it as many as are expected.
func (r *Recorder) gather(turn time.Time) bool {
	wait := time.Until(turn)
	if wait <= 0 {
		runtime.Gosched()
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !r.ready() {
		select {
		case <-r.many:
		case <-timer.C:
			return true
		}
	}
	return false
}

// signal leaves a token where none is.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush takes back what is to be, commits all that is pending, answers its callers, and returns how many they were and how
// long the disk took. The error is about what is to be taken back.
func (r *Recorder) flush() (messages int, disk time.Duration, err error) {
	r.mu.Lock()
	batch, back := r.pending, r.back
	r.pending, r.back = nil, nil
	r.mu.Unlock()
	var left []entry
	err = r.enclose()
	if err == nil {
		left, err = r.underway.leftover()
	}
	back = append(back, left...)
	former := back
	for _, p := range batch {
		if p.former.instance != "" {
			former = append(former, p.former)
		}
	}
	if err == nil && len(former) > 0 {
		err = r.ledger.withdraw(former)
	}
	if err != nil {
		r.mu.Lock()
		r.back = append(r.back, back...)
		r.mu.Unlock()
		for _, p := range batch {
			p.result <- unavailable(err)
		}
		return len(batch), 0, err
	}
	for _, e := range back {
		r.underway.leave(e.place)
	}
	return len(batch), r.store(batch), nil
}

// store commits messages, and tells each how that ended. Where one of them violates a constraint, the others do not
// fail with it.
func (r *Recorder) store(batch []*pending) (disk time.Duration) {
	if len(batch) == 0 {
		return 0
	}
	begun := time.Now()
	// Whoever waits may give up; the batch belongs to all of them and is written.
	disk, err := r.ledger.commit(context.Background(), r.behind(r.ledger.evidence(batch))...)
	r.commit(len(batch), time.Since(begun), err)
	switch {
	case isBurnt(err):
		if err = unavailable(r.move()); err == nil {
			return r.store(batch)
		}
	case errors.Is(err, errUnknown):
		r.spent = true
	}
	var against violation
	if errors.As(err, &against) && len(batch) > 1 {
		return r.store(batch[:len(batch)/2]) + r.store(batch[len(batch)/2:])
	}
	r.answer(batch, err)
	return disk
}

// answer tells messages how their commit ended, after a look at what there is of those that a limit may have kept out.
func (r *Recorder) answer(batch []*pending, err error) {
	var limited []*pending
	var messages []*Message
	for _, p := range batch {
		if err == nil && len(p.message.Limits) > 0 {
			limited, messages = append(limited, p), append(messages, &p.message)
			continue
		}
		p.result <- err
	}
	if len(limited) == 0 {
		return
	}
	kept, err := r.ledger.uncounted(context.Background(), messages)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnknown, unavailable(err))
	}
	for i, p := range limited {
		if err == nil && kept[i] {
			p.result <- ErrLimit
			continue
		}
		p.result <- err
	}
}
