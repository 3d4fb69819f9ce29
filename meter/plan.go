package meter

import (
	"cmp"
	"context"
	"fmt"
	"strings"
)

// Terms are how much mail an account may have, and what it costs. The zero value of each is where others apply: an account's
// plan, and after that the settings file's.
type Terms struct {
	Messages        int64   `json:"messages,omitempty"`         // tier size in messages; at last [limits] messages
	Bytes           int64   `json:"bytes,omitempty"`            // tier size in octets; at last [limits] bytes
	OnLimit         OnLimit `json:"on_limit,omitempty"`         // at last [limits] on_limit
	MaxTiers        int64   `json:"max_tiers,omitempty"`        // with bill: 452 above so many tiers; at last no bound
	BasePrice       Price   `json:"base_price,omitzero"`        // at last [billing] base_price
	TierPrice       Price   `json:"tier_price,omitzero"`        // at last [billing] tier_price
	WaitingMessages int64   `json:"waiting_messages,omitempty"` // that may wait in the MTA's queue; at last no bound
	WaitingBytes    int64   `json:"waiting_bytes,omitempty"`    // octets of them; at last no bound
}

// A Plan is terms under a name, which many accounts have.
type Plan struct {
	Name string `json:"name"`
	Terms
}

// PlanUse is a plan with how many accounts have it.
type PlanUse struct {
	Plan
	Accounts int64
}

// Plans returns the price plans in the order of their names.
func (l *Ledger) Plans(ctx context.Context) (uses []PlanUse, err error) {
	plans := map[string]*Plan{}
	err = l.read(ctx, current, plansInto(plans), query{statement{sql: `
		SELECT name, (SELECT count(*) FROM account WHERE plan = p.name AND deleted IS NULL) FROM plan p ORDER BY name`}, func(r scanner) error {
		var name string
		var accounts int64
		if err := r.Scan(&name, &accounts); err != nil {
			return err
		}
		uses = append(uses, PlanUse{*plans[name], accounts})
		return nil
	}})
	return uses, err
}

// AddPlan makes a plan. Errors: [ErrInvalid], [ErrPlanTaken].
func (l *Ledger) AddPlan(ctx context.Context, p Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	err := l.batch(ctx, l.addPlan(p)...)
	if violates(err, "UNIQUE constraint failed: plan.name") {
		return fmt.Errorf("%s: %w", p.Name, ErrPlanTaken)
	}
	return err
}

// addPlan makes the statements for a new plan, the first line of its history among them.
func (l *Ledger) addPlan(p Plan) []statement {
	return []statement{
		{`INSERT INTO plan (name, messages, bytes, on_limit, max_tiers, base_price, tier_price, waiting_messages, waiting_bytes)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			[]any{p.Name, p.Messages, p.Bytes, p.OnLimit, p.MaxTiers, p.BasePrice, p.TierPrice, p.WaitingMessages, p.WaitingBytes}},
		{"INSERT INTO change (at, who, plan, action) VALUES (?, ?, ?, 'plan add')", []any{l.opt.Now().UnixMilli(), l.opt.Actor, p.Name}},
		historyAfter,
	}
}

// EditPlan changes what edit changes of a plan's terms, and nothing else. They are in force for all its accounts at once.
// Errors: [ErrNoPlan], [ErrInvalid].
func (l *Ledger) EditPlan(ctx context.Context, name string, edit func(*Terms) error) (before, after *Plan, err error) {
	plans, err := l.plans(ctx)
	if err != nil {
		return nil, nil, err
	}
	before = plans[name]
	if before == nil {
		return nil, nil, noPlan(name)
	}
	edited := *before
	if err := edit(&edited.Terms); err != nil {
		return nil, nil, err
	}
	if err := edited.Validate(); err != nil {
		return nil, nil, err
	}
	var c changed
	c.terms(before.Terms, edited.Terms)
	if c.columns == nil {
		return before, before, nil
	}
	return before, &edited, l.changePlan(ctx, name, "plan set", statement{"UPDATE plan SET " + c.list() + " WHERE name = ?", append(c.args, name)})
}

// RemovePlan removes a plan that no account has. Deleted accounts that had it keep its terms as their own, by which the
// months that are not closed are billed. Errors: [ErrNoPlan], [ErrPlanInUse].
func (l *Ledger) RemovePlan(ctx context.Context, name string) error {
	err := l.changePlan(ctx, name, "plan remove",
		statement{`
			UPDATE account AS a SET plan = NULL,
				messages = coalesce(nullif(a.messages, 0), p.messages), bytes = coalesce(nullif(a.bytes, 0), p.bytes),
				on_limit = coalesce(nullif(a.on_limit, ''), p.on_limit), max_tiers = coalesce(nullif(a.max_tiers, 0), p.max_tiers),
				base_price = coalesce(a.base_price, p.base_price), tier_price = coalesce(a.tier_price, p.tier_price)
			FROM plan p WHERE p.name = ? AND a.plan = p.name AND a.deleted IS NOT NULL`, []any{name}},
		statement{"DELETE FROM plan WHERE name = ?", []any{name}})
	if violates(err, "FOREIGN KEY constraint failed") {
		return l.whoHasPlan(ctx, name)
	}
	return err
}

// changePlan is change for a plan.
func (l *Ledger) changePlan(ctx context.Context, name, action string, statements ...statement) error {
	batch := []statement{{`
		INSERT INTO change (at, who, plan, action, before)
		VALUES (?, ?, (SELECT name FROM plan WHERE name = ?), ?, (SELECT document FROM plan_document WHERE name = ?))`,
		[]any{l.opt.Now().UnixMilli(), l.opt.Actor, name, action, name}}}
	batch = append(batch, statements...)
	err := l.batch(ctx, append(batch, historyAfter)...)
	if ofNothing(err) {
		return noPlan(name)
	}
	return err
}

// namedAccounts is how many of a plan's accounts are named.
const namedAccounts = 3

// whoHasPlan says how many accounts have the plan, and names some.
func (l *Ledger) whoHasPlan(ctx context.Context, plan string) error {
	var names []string
	var all int
	for rows, err := range l.rows(ctx, `
		SELECT name, count(*) OVER () FROM account WHERE plan = ? AND deleted IS NULL ORDER BY name LIMIT ?`, plan, namedAccounts) {
		var name string
		if err == nil {
			err = rows.Scan(&name, &all)
		}
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	list := strings.Join(names, ", ")
	if more := all - len(names); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("%s: %w: %s", plan, ErrPlanInUse, list)
}

func noPlan(name string) error { return fmt.Errorf("%s: %w", name, ErrNoPlan) }

// Or are the terms, and where there are none the others.
func (t Terms) Or(others Terms) Terms {
	if !t.BasePrice.Set {
		t.BasePrice = others.BasePrice
	}
	if !t.TierPrice.Set {
		t.TierPrice = others.TierPrice
	}
	t.Messages = cmp.Or(t.Messages, others.Messages)
	t.Bytes = cmp.Or(t.Bytes, others.Bytes)
	t.OnLimit = cmp.Or(t.OnLimit, others.OnLimit)
	t.MaxTiers = cmp.Or(t.MaxTiers, others.MaxTiers)
	t.WaitingMessages = cmp.Or(t.WaitingMessages, others.WaitingMessages)
	t.WaitingBytes = cmp.Or(t.WaitingBytes, others.WaitingBytes)
	return t
}

// Full reports whether as much waits in the MTA's queue as may.
func (t Terms) Full(messages, bytes int64) bool {
	return t.WaitingMessages > 0 && messages >= t.WaitingMessages || t.WaitingBytes > 0 && bytes >= t.WaitingBytes
}

// Validate checks what a plan must fulfil; the error ([ErrInvalid]) says what to change.
func (p *Plan) Validate() error {
	if !ValidName(p.Name) {
		return invalid("the plan's name %q must be 1 to 32 of a-z, 0-9 and hyphen, and not begin with a hyphen", p.Name)
	}
	return p.Terms.validate()
}

// validate checks what terms must fulfil whosever they are; the error is an [ErrInvalid].
func (t Terms) validate() error {
	switch t.OnLimit {
	case "", Bill, Defer, Reject:
	default:
		return invalid("on-limit %q is none of bill, defer, reject", t.OnLimit)
	}
	if min(t.Messages, t.Bytes, t.MaxTiers, t.WaitingMessages, t.WaitingBytes, int64(t.BasePrice.Cents), int64(t.TierPrice.Cents)) < 0 {
		return invalid("limits and prices cannot be negative")
	}
	if max(t.Messages, t.Bytes, t.MaxTiers, t.WaitingMessages, t.WaitingBytes) > MaxLimit {
		return invalid("messages, bytes, max-tiers and what may wait can be %d at most", int64(MaxLimit))
	}
	return nil
}

func (l *Ledger) plans(ctx context.Context) (map[string]*Plan, error) {
	plans := map[string]*Plan{}
	return plans, l.read(ctx, current, plansInto(plans))
}

// plansInto reads all plans.
func plansInto(plans map[string]*Plan) query {
	return query{statement{sql: `
		SELECT name, messages, bytes, on_limit, max_tiers, base_price, tier_price, waiting_messages, waiting_bytes FROM plan`}, func(r scanner) error {
		p := new(Plan)
		if err := r.Scan(&p.Name, &p.Messages, &p.Bytes, &p.OnLimit, &p.MaxTiers, &p.BasePrice, &p.TierPrice, &p.WaitingMessages, &p.WaitingBytes); err != nil {
			return err
		}
		plans[p.Name] = p
		return nil
	}}
}
