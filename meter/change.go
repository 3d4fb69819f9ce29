package meter

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What a change can be refused for.
var (
	ErrNoAccount    = errors.New("there is no such account")
	ErrNameTaken    = errors.New("the name is taken")
	ErrDomainTaken  = errors.New("the domain belongs to an account already")
	ErrNoDomain     = errors.New("the account does not have this domain")
	ErrNoNetwork    = errors.New("the account does not have this network")
	ErrMailboxTaken = errors.New("the mailbox exists already")
	ErrNoMailbox    = errors.New("there is no such mailbox")
	ErrNoPlan       = errors.New("there is no such plan")
	ErrPlanTaken    = errors.New("there is a plan of this name already")
	ErrPlanInUse    = errors.New("accounts have the plan")
	ErrInvalid      = errors.New("invalid")
	ErrChanged      = errors.New("it was changed meanwhile")
)

// change executes the statements on an existing account, with a line of its history around them:
// the account before and after, taken by the database itself, so that the line is right whatever
// another process writes at the same time. An account that is not there fails the whole batch.
func (l *Ledger) change(ctx context.Context, name, action string, statements ...statement) error {
	batch := []statement{l.historyBefore(name, action)}
	batch = append(batch, statements...)
	batch = append(batch, historyAfter)
	err := l.batch(ctx, batch...)
	if ofNothing(err) {
		return fmt.Errorf("%s: %w", name, ErrNoAccount)
	}
	return err
}

// historyBefore begins a history line of an account.
func (l *Ledger) historyBefore(name, action string) statement {
	return statement{`
		INSERT INTO change (at, who, account, action, before)
		VALUES (?, ?, ` + accountID + `, ?, (SELECT document FROM account_document WHERE name = ?))`,
		[]any{l.opt.Now().UnixMilli(), l.opt.Actor, name, action, name}}
}

// historyAfter completes the history line that the batch began, which is the newest.
var historyAfter = statement{sql: `
	UPDATE change SET after = iif(account IS NULL, (SELECT document FROM plan_document WHERE name = plan),
	                              (SELECT document FROM account_document WHERE id = account))
	WHERE id = (SELECT max(id) FROM change)`}

// changed are the columns of a row that get other values.
type changed struct {
	columns []string
	args    []any
}

func (c *changed) set(column string, old, new any) {
	if old != new {
		c.columns = append(c.columns, column+" = ?")
		c.args = append(c.args, new)
	}
}

func (c *changed) terms(old, new Terms) {
	c.set("messages", old.Messages, new.Messages)
	c.set("bytes", old.Bytes, new.Bytes)
	c.set("on_limit", old.OnLimit, new.OnLimit)
	c.set("max_tiers", old.MaxTiers, new.MaxTiers)
	c.set("base_price", old.BasePrice, new.BasePrice)
	c.set("tier_price", old.TierPrice, new.TierPrice)
	c.set("waiting_messages", old.WaitingMessages, new.WaitingMessages)
	c.set("waiting_bytes", old.WaitingBytes, new.WaitingBytes)
}

// list is what stands behind SET.
func (c *changed) list() string { return strings.Join(c.columns, ", ") }

// ofNothing reports whether a change failed because what it is of is not there.
func ofNothing(err error) bool { return violates(err, "CHECK constraint failed: change_of_one_thing") }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}
