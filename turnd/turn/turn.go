package turn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"mailbag/meter"
	"mailbag/turnd/relay"
)

// A turn is one account's. It is made by new, gets its place in reserve, its socket in openGate, and its
// connection in serve; end takes all of that back, and is called exactly once after reserve succeeded.
type turn struct {
	*Turns
	account *meter.Account
	domains []string // that ATRN named; none: all
	token   string
	gate    *gate   // nil before openGate
	window  *window // likewise

	stop      chan struct{} // closed by halt
	halting   sync.Once
	immediate context.Context // over when the turn is to be cut off
	cut       context.CancelFunc

	mu     sync.Mutex
	record meter.Turn
	halted error // why halt was called
}

func (ts *Turns) new(a *meter.Account, kind meter.TurnKind, c Client) *turn {
	t := &turn{Turns: ts, account: a, token: rand.Text(), stop: make(chan struct{})}
	t.immediate, t.cut = context.WithCancel(context.Background())
	t.record = meter.Turn{Account: a.Name, Kind: kind, Client: c.Addr, Began: ts.cfg.Now()}
	return t
}

// reserve gives the turn its place among the others, and its line in the ledger, if mail waits for it.
func (t *turn) reserve(ctx context.Context) error {
	waiting, err := t.Waiting(ctx, t.account, t.domains)
	switch {
	case err != nil:
		return err
	case waiting.Messages == 0:
		return ErrNothingWaits
	}
	t.Turns.mu.Lock()
	switch {
	case t.closing:
		err = ErrClosing
	case t.open[t.account.Name] != nil:
		err = ErrOpen
	case len(t.open) >= t.cfg.MaxTurns:
		err = ErrTooMany
	default:
		t.open[t.account.Name] = t
		t.running.Add(1)
	}
	t.Turns.mu.Unlock()
	if err != nil {
		return err
	}
	if err := t.cfg.Ledger.BeginTurn(ctx, t.token, t.account.ID, t.record); err != nil {
		t.leave()
		return err
	}
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

// serve carries mail over the channel until the turn is over.
func (t *turn) serve(channel *relay.Channel) error {
	t.mu.Lock()
	t.record.TLS = channel.TLS()
	t.mu.Unlock()
	t.log.Info("turn began", t.attributes()...)
	unwatch := context.AfterFunc(t.immediate, channel.Close)
	defer unwatch()
	t.window.begin()
	t.gate.serve(channel)
	outcome := "done"
	select {
	case <-t.window.drained:
		if n := t.window.left(); n > 0 {
			outcome = fmt.Sprintf("done, but the MTA did not bring %d of what was released", n)
		}
	case <-channel.Ended():
	case <-t.stop:
		outcome = t.why().Error()
	}
	t.gate.refuse("4.3.2 The turn is over, the message waits for the next one")
	err := channel.Quit()
	if t.immediate.Err() != nil {
		outcome = "cut off"
	} else if err != nil {
		outcome = "failed"
	}
	t.end(outcome, err)
	return err
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
	settleTime = 10 * time.Second // for the MTA to take back what was released and not delivered
	recordTime = 15 * time.Second // for the ledger to take the end of a turn
)

// end takes the turn down. err, which may be nil, is why.
func (t *turn) end(outcome string, err error) {
	if t.gate != nil {
		settling, cancel := context.WithTimeout(t.immediate, settleTime)
		t.window.settle(settling)
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
	recording, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	if err := t.cfg.Ledger.EndTurn(recording, t.token, record); err != nil {
		t.log.Error("the end of a turn could not be recorded", "account", record.Account, "error", err)
	}
	t.metrics.ended(record, err)
	attributes := append(t.attributes(), "messages", record.Messages, "bytes", record.Bytes,
		"seconds", record.Ended.Sub(record.Began).Seconds(), "outcome", outcome)
	if errors.Is(err, ErrNotDelivered) {
		t.log.Warn("turn ended: the MTA did not deliver what was released; see that it runs and is wired (mailbag postfix check)", attributes...)
	} else {
		t.log.Info("turn ended", attributes...)
	}
	t.leave()
}

func (t *turn) attributes() []any {
	r := t.status()
	return []any{"account", r.Account, "kind", string(r.Kind), "client", r.Client, "peer", r.Peer, "tls", r.TLS}
}

func (t *turn) status() meter.Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.record
}

// count adds a message that the customer's server took.
func (t *turn) count(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Messages++
	t.record.Bytes += bytes
}
