package meter

import (
	"context"
	"iter"
	"strings"
	"time"
)

// Doubtful is how many messages there are of which it is not known whether the MTA has accepted them: because the process was
// killed just when it answered, or the machine went down.
func (r *Recorder) Doubtful() (int, error) {
	doubts, err := r.underway.doubtful()
	return len(doubts), err
}

// betweenListings is the pause between two listings of a queue, each of which can miss a message that moves.
const betweenListings = time.Second

// Settle ends what doubts the MTA's queue can end: what it holds was accepted, and what is held for a turn, is not there
// and was not handed over was not, and is taken back. Others stay doubtful. It is to be called when whatever
// the MTA was doing at the time is done.
func (r *Recorder) Settle(ctx context.Context, d *Directory, list func() iter.Seq2[QueuedMessage, error]) error {
	doubts, err := r.underway.doubtful()
	if err != nil || len(doubts) == 0 {
		return err
	}
	queued := map[string]bool{}
	for i := range 2 {
		if i > 0 {
			select {
			case <-time.After(betweenListings):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for m, err := range list() {
			if err != nil {
				return err
			}
			queued[m.ID] = true
		}
	}
	for _, e := range doubts {
		id, _, _ := strings.Cut(e.instance, "@")
		lost := false
		if !queued[id] {
			if lost, err = r.ledger.shouldWait(ctx, d, e.instance); err != nil {
				return err
			}
		}
		switch {
		case !queued[id] && !lost, !r.underway.sure(e):
		case lost:
			r.takeBack(e)
		default:
			r.underway.leave(e.place)
		}
	}
	return nil
}

// shouldWait reports whether a message is held for all of its accounts, and none of them is known to have got it.
func (l *Ledger) shouldWait(ctx context.Context, d *Directory, instance string) (bool, error) {
	found := false
	for rows, err := range l.rows(ctx, `
		SELECT account, EXISTS (SELECT 1 FROM waiting AS w WHERE w.host = m.host AND w.queue_id = m.queue_id AND w.account = m.account AND w.delivered IS NOT NULL)
		FROM message AS m WHERE instance = ?`, instance) {
		var id int64
		var handed bool
		if err == nil {
			err = rows.Scan(&id, &handed)
		}
		if err != nil {
			return false, err
		}
		if a := d.AccountByID(id); a == nil || !a.Held() || handed {
			return false, nil
		}
		found = true
	}
	return found, nil
}
