package main

import (
	"fmt"
	"time"

	"mailbag/popd"
)

// store is where mailbag-popd keeps mail.
func (d *desk) store() *popd.Store { return popd.NewStore(d.settings.POP.Maildirs, time.Now) }

// keepOrPurge is what to do with the mail of an account that is deleted.
type keepOrPurge struct{ keep, purge bool }

// settle refuses to leave stored mail behind unless the operator has said what becomes of it. It returns what
// is stored.
func (d *desk) settle(account string, what keepOrPurge) (popd.Stored, error) {
	stored, err := d.store().Stored(account)
	if err != nil {
		return stored, fmt.Errorf("%w; run mailbag as a user who may read %s", err, d.settings.POP.Maildirs)
	}
	if stored.Messages > 0 && !what.keep && !what.purge {
		return stored, fmt.Errorf("%s in the Maildirs of %s; --keep-mail leaves them where they are, --purge-mail removes them for good",
			amount(stored.Messages, stored.Bytes)+" "+verb(stored.Messages, "is", "are"), account)
	}
	return stored, nil
}

// dispose does with the mail of a deleted account what was said.
func (d *desk) dispose(account string, stored popd.Stored, what keepOrPurge) error {
	switch {
	case what.purge:
		if err := d.store().Purge(account); err != nil {
			return fmt.Errorf("%s is deleted, but its mail is not: %w", account, err)
		}
		if stored.Messages > 0 {
			d.say("removed %s", amount(stored.Messages, stored.Bytes))
		}
	case stored.Messages > 0:
		d.note("its mail stays in %s/%s", d.settings.POP.Maildirs, account)
	}
	return nil
}

// pointOutStored says what stays in the Maildirs of an account that is not a pop3 account any more.
func (d *desk) pointOutStored(account string) {
	if stored, err := d.store().Stored(account); err == nil && stored.Messages > 0 {
		d.note("%s %s in the Maildirs of %s, and nobody can fetch it while the account is not a pop3 account",
			amount(stored.Messages, stored.Bytes), verb(stored.Messages, "stays", "stay"), account)
	}
}
