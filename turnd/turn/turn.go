package turn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailbag/meter"
)

// A turn is one account's. It is made by new, gets its place in reserve, its line in the ledger in begin, its socket in
// openGate, and its connections in serve; end takes all of that back, and is called exactly once after reserve succeeded.
type turn struct {
	*Turns
	account *meter.Account
	domains []string // that ATRN named; none: all
	token   string
	gate    *gate   // nil before openGate
	window  *window // likewise
	begun   bool    // it has its line in the ledger

	stop      chan struct{} // closed by halt
	halting   sync.Once
	immediate context.Context // over when the turn is to be cut off
	cut       context.CancelFunc

	refusals atomic.Int64 // of recipients, on this connection
	pace     pace

	mu     sync.Mutex
	record meter.Turn
	halted error // why halt was called
	chokes int   // messages under which a connection broke while they went alone
}

func (ts *Turns) new(a *meter.Account, kind meter.TurnKind, c Client) *turn {
	t := &turn{Turns: ts, account: a, token: rand.Text(), stop: make(chan struct{})}
	t.immediate, t.cut = context.WithCancel(context.Background())
	t.record = meter.Turn{Account: a.Name, Kind: kind, Client: c.Addr, Began: ts.cfg.Now()}
	return t
}

// reversed reports whether the turn has one connection, which the customer opened.
func (t *turn) reversed() bool { return t.record.Kind == meter.TurnATRN }

// reserve gives the turn its place among the others, if mail waits for it.
func (t *turn) reserve(ctx context.Context) error {
	if t.Open(t.account.Name) { // before anything that costs more
		return ErrOpen
	}
	waits, err := t.cfg.Ledger.HasWaiting(ctx, t.account.ID, t.domains...)
	switch {
	case err != nil:
		return err
	case !waits:
		t.inVain()
		return ErrNothingWaits
	}
	t.Turns.mu.Lock()
	defer t.Turns.mu.Unlock()
	switch {
	case t.closing:
		return ErrClosing
	case t.open[t.account.Name] != nil:
		return ErrOpen
	case len(t.open) >= t.cfg.Bounds().MaxTurns:
		return ErrTooMany
	}
	t.open[t.account.Name] = t
	t.running.Add(1)
	return nil
}

// many reports whether more than one message waits.
func (t *turn) many(ctx context.Context) bool {
	page, err := t.cfg.Ledger.WaitingAfter(ctx, t.account.ID, t.domains, meter.WaitingMessage{}, 2)
	return err != nil || len(page) > 1
}

// begin gives the turn its line in the ledger.
func (t *turn) begin(ctx context.Context) error {
	if err := t.cfg.Ledger.BeginTurn(ctx, t.token, t.account.ID, t.status()); err != nil {
		return err
	}
	t.begun = true
	return nil
}

// leave gives the turn's place to others.
func (t *turn) leave() {
	t.cut()
	t.Turns.mu.Lock()
	delete(t.open, t.account.Name)
	t.Turns.mu.Unlock()
	t.running.Done()
}

// openGate opens the account's socket and begins to release what waits.
func (t *turn) openGate(ctx context.Context) error {
	listener, err := t.cfg.Listen(ctx, t.account.Name)
	if err != nil {
		return fmt.Errorf("%w: the socket of the turn: %w", ErrNotDelivered, err)
	}
	t.window = newWindow(t)
	t.gate = newGate(t, listener)
	t.window.start()
	return nil
}

// halt ends the turn when what it has in flight is finished.
func (t *turn) halt(why error) {
	t.halting.Do(func() {
		t.mu.Lock()
		t.halted = why
		t.mu.Unlock()
		close(t.stop)
	})
}

// why is why halt was called.
func (t *turn) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.halted
}

const (
	drainTime  = 10 * time.Second // for the MTA to take back what was released and not delivered
	recordTime = 15 * time.Second // for the ledger to take the end of a turn
)

// end takes the turn down. err, which may be nil, is why.
func (t *turn) end(outcome string, err error) {
	if t.gate != nil {
		draining, cancel := context.WithTimeout(t.immediate, drainTime)
		t.window.drain(draining)
		cancel()
		t.gate.close()
		t.window.close()
	}
	if err != nil {
		outcome += ": " + err.Error()
	}
	t.mu.Lock()
	t.record.Ended = t.cfg.Now()
	t.record.Outcome = outcome
	record := t.record
	t.mu.Unlock()
	if err := t.write(record); err != nil {
		t.log.Error("the end of a turn could not be recorded", "account", record.Account, "error", err)
	}
	if errors.Is(err, ErrNothingWaits) {
		t.inVain()
	}
	t.metrics.ended(record, err)
	attributes := append(t.attributes(), "messages", record.Messages, "bytes", record.Bytes, "connections", record.Connections,
		"seconds", record.Ended.Sub(record.Began).Seconds(), "outcome", outcome)
	if len(record.Suspects) > 0 {
		attributes = append(attributes, "suspects", record.Suspects)
	}
	if errors.Is(err, ErrNotDelivered) {
		t.log.Warn("turn ended: the MTA did not deliver what was released; see that it runs and is wired (mailbag doctor)", attributes...)
	} else {
		t.log.Info("turn ended", attributes...)
	}
	t.leave()
}

// write writes the record of a turn that is over.
func (t *turn) write(record meter.Turn) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	if t.begun {
		return t.cfg.Ledger.EndTurn(ctx, t.token, record)
	}
	return t.cfg.Ledger.RecordTurn(ctx, t.token, t.account.ID, record)
}

func (t *turn) attributes() []any {
	r := t.status()
	return []any{"account", r.Account, "kind", string(r.Kind), "client", r.Client, "peer", r.Peer, "tls", r.TLS}
}

func (t *turn) status() meter.Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	record := t.record
	record.Suspects = slices.Clone(record.Suspects)
	return record
}

// count adds a message that the customer's server took.
func (t *turn) count(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Messages++
	t.record.Bytes += bytes
}

// maxSuspects bounds how many suspects a turn's record names.
const maxSuspects = 20

// choked notes a message under which a connection broke while it went alone.
func (t *turn) choked(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.record.Suspects) < maxSuspects {
		t.record.Suspects = append(t.record.Suspects, id)
	}
	t.chokes++
}
