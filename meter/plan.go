package meter

import (
	"cmp"
	"context"
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

func loadPlans(ctx context.Context, q querier) (map[string]*Plan, error) {
	plans := map[string]*Plan{}
	for rows, err := range query(ctx, q, `
		SELECT name, messages, bytes, on_limit, max_tiers, base_price, tier_price, waiting_messages, waiting_bytes FROM plan`) {
		p := new(Plan)
		if err == nil {
			err = rows.Scan(&p.Name, &p.Messages, &p.Bytes, &p.OnLimit, &p.MaxTiers, &p.BasePrice, &p.TierPrice, &p.WaitingMessages, &p.WaitingBytes)
		}
		if err != nil {
			return nil, err
		}
		plans[p.Name] = p
	}
	return plans, nil
}
