package turn

import (
	"context"
	"time"

	"mailbag/meter"
)

// Asked reports whether mail waits for the account, or for some of its domains, of which its customer asks. It costs little,
// however much does.
func (ts *Turns) Asked(ctx context.Context, a *meter.Account, domains []string) (waits bool, err error) {
	waits, err = ts.cfg.Ledger.HasWaiting(ctx, a.ID, domains...)
	if err == nil && !waits {
		ts.askedInVain(a)
	}
	return waits, err
}

// inVain notes that nothing waits for who asked for the turn, unless that was an operator, who has no address.
func (t *turn) inVain() {
	if t.record.Client != "" {
		t.askedInVain(t.account)
	}
}

// vainTime is for the ledger to take that somebody asked in vain, who waits for the answer.
const vainTime = time.Second

// askedInVain notes that the account's customer asked, which no turn tells. What keeps the ledger from taking it is in the
// log of who follows it.
func (ts *Turns) askedInVain(a *meter.Account) {
	ctx, cancel := context.WithTimeout(context.Background(), vainTime)
	defer cancel()
	if err := ts.cfg.Ledger.Called(ctx, a.ID); err != nil {
		ts.log.Debug("a call in vain could not be recorded", "account", a.Name, "error", err)
	}
}
