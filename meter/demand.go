package meter

import (
	"context"
	"time"
)

// Demands are what the accounts together need of the MTA.
type Demands struct {
	LongestHold time.Duration
	Verify      bool // some accept what the customer's server does
	RequireTLS  bool // some of those whose mail is relayed have their TLS set so
	VerifyTLS   bool
}

// Demands returns what the accounts that are not deleted need.
func (l *Ledger) Demands(ctx context.Context) (all Demands, err error) {
	for rows, err := range l.rows(ctx, `
		SELECT mode, max(hold), min(hold), max(recipients = 'verify'), max(tls = 'require'), max(tls = 'verify')
		FROM account WHERE deleted IS NULL GROUP BY mode`) {
		var mode Mode
		var longest, shortest int64
		var verify, require, verifyTLS bool
		if err == nil {
			err = rows.Scan(&mode, &longest, &shortest, &verify, &require, &verifyTLS)
		}
		if err != nil {
			return all, err
		}
		for _, seconds := range []int64{longest, shortest} {
			a := Account{Mode: mode, Hold: time.Duration(seconds) * time.Second}
			all.LongestHold = max(all.LongestHold, a.HoldTime())
		}
		all.Verify = all.Verify || verify
		all.RequireTLS = all.RequireTLS || mode == Backup && require // other mail leaves by mailbag-turnd, or not at all
		all.VerifyTLS = all.VerifyTLS || mode == Backup && verifyTLS
	}
	return all, nil
}
