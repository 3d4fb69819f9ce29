package main

import (
	"fmt"
	"strings"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// termFields are what accounts and plans have flags for alike. An account's value goes before its plan's, and that before the
// settings'.
var termFields = []field[meter.Terms]{
	{"messages", "messages in a monthly tier; 0: none of its own", nil,
		nil, value("N", orEmpty(count), func(t *meter.Terms) *int64 { return &t.Messages })},
	{"bytes", "size of a monthly tier, such as 500MB, 1GB, 2GiB; 0: none of its own", nil,
		nil, value("SIZE", orEmpty(units.ParseSize), func(t *meter.Terms) *int64 { return &t.Bytes })},
	{"on-limit", "what happens above the first tier: bill, defer (452), reject (552); empty: none of its own", nil,
		texts(limitActions), value("ACTION", orEmpty(choice(limitActions...)), func(t *meter.Terms) *meter.OnLimit { return &t.OnLimit })},
	{"max-tiers", "with bill: defer (452) above so many tiers; 0: no bound of its own", nil,
		nil, value("N", orEmpty(count), func(t *meter.Terms) *int64 { return &t.MaxTiers })},
	{"base-price", "price of a month with its first tier, such as 10.00; empty: none of its own", nil,
		nil, value("AMOUNT", orEmpty(price), func(t *meter.Terms) *meter.Price { return &t.BasePrice })},
	{"tier-price", "price of each further tier, such as 10.00; empty: none of its own", nil,
		nil, value("AMOUNT", orEmpty(price), func(t *meter.Terms) *meter.Price { return &t.TierPrice })},
	{"waiting-messages", "messages that may wait in the MTA's queue, above which new ones are deferred (452); 0: no bound of its own", queued,
		nil, value("N", orEmpty(count), func(t *meter.Terms) *int64 { return &t.WaitingMessages })},
	{"waiting-bytes", "size of mail that may wait there, such as 5GB; 0: no bound of its own", queued,
		nil, value("SIZE", orEmpty(units.ParseSize), func(t *meter.Terms) *int64 { return &t.WaitingBytes })},
}

// queued are the modes whose mail waits in the MTA's queue.
var queued = []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN}

// termsMeaning is for the help texts that have their flags.
const termsMeaning = `Limits and prices that an account has none of its own for are those of its plan, and else of the settings.`

// termsDocument are terms in JSON. What is 0, empty or null is as the plan or the settings say. Sizes are octets, prices in
// the currency's unit.
type termsDocument struct {
	Messages        int64         `json:"messages"`
	Bytes           int64         `json:"bytes"`
	OnLimit         meter.OnLimit `json:"on_limit"`
	MaxTiers        int64         `json:"max_tiers"`
	BasePrice       *string       `json:"base_price"`
	TierPrice       *string       `json:"tier_price"`
	WaitingMessages int64         `json:"waiting_messages" older:"lacks"`
	WaitingBytes    int64         `json:"waiting_bytes" older:"lacks"`
}

func documentOf(t meter.Terms) termsDocument {
	return termsDocument{t.Messages, t.Bytes, t.OnLimit, t.MaxTiers, ownPrice(t.BasePrice), ownPrice(t.TierPrice), t.WaitingMessages, t.WaitingBytes}
}

func ownPrice(p meter.Price) *string {
	if !p.Set {
		return nil
	}
	text := p.Cents.String()
	return &text
}

// terms are those of the document, as far as they can be understood, and what of it cannot.
func (d termsDocument) terms() (t meter.Terms, faults []error) {
	t = meter.Terms{Messages: d.Messages, Bytes: d.Bytes, OnLimit: d.OnLimit, MaxTiers: d.MaxTiers, WaitingMessages: d.WaitingMessages, WaitingBytes: d.WaitingBytes}
	for _, price := range []struct {
		text *string
		to   *meter.Price
	}{{d.BasePrice, &t.BasePrice}, {d.TierPrice, &t.TierPrice}} {
		if price.text == nil {
			continue
		}
		cents, err := units.ParseMoney(*price.text)
		if err != nil {
			faults = append(faults, err)
		}
		*price.to = meter.Price{Set: true, Cents: meter.Cents(cents)}
	}
	return t, faults
}

// effectiveTerms are those that are in force, in JSON.
type effectiveTerms struct {
	Messages        int64         `json:"messages"`
	Bytes           int64         `json:"bytes"`
	OnLimit         meter.OnLimit `json:"on_limit"`
	MaxTiers        int64         `json:"max_tiers"` // 0: no bound
	BasePrice       string        `json:"base_price"`
	TierPrice       string        `json:"tier_price"`
	Currency        string        `json:"currency"`
	WaitingMessages int64         `json:"waiting_messages"` // 0: no bound
	WaitingBytes    int64         `json:"waiting_bytes"`    // 0: no bound
}

// effective are the terms of an account that are in force.
func (d *desk) effective(a *meter.Account) effectiveTerms {
	t, waiting := d.tariff().For(a), a.InForce()
	return effectiveTerms{t.Messages, t.Bytes, t.OnLimit, t.MaxTiers, t.BasePrice.String(), t.TierPrice.String(), t.Currency,
		waiting.WaitingMessages, waiting.WaitingBytes}
}

// showTerms adds to a table which terms of an account are in force, and where each comes from.
func (d *desk) showTerms(t *table, a *meter.Account) {
	own, e := a.Terms, d.effective(a)
	var plan meter.Terms
	if a.PlanTerms != nil {
		plan = *a.PlanTerms
	}
	from := func(own, plan bool) string {
		switch {
		case own:
			return " (own)"
		case plan:
			return " (plan " + a.Plan + ")"
		}
		return " (default)"
	}
	line := func(name, format string, args ...any) { t.add(name, fmt.Sprintf(format, args...)) }
	line("tier", "%s messages%s or %s%s", grouped(e.Messages), from(own.Messages > 0, plan.Messages > 0),
		units.FormatSize(e.Bytes), from(own.Bytes > 0, plan.Bytes > 0))
	line("above it", "%s%s", e.OnLimit, from(own.OnLimit != "", plan.OnLimit != ""))
	if e.MaxTiers > 0 {
		line("tiers", "at most %s%s", grouped(e.MaxTiers), from(own.MaxTiers > 0, true))
	}
	line("prices", "%s%s and %s%s for each further tier, %s", e.BasePrice, from(own.BasePrice.Set, plan.BasePrice.Set),
		e.TierPrice, from(own.TierPrice.Set, plan.TierPrice.Set), e.Currency)
	var bounds []string
	if e.WaitingMessages > 0 && a.Mode != meter.POP3 {
		bounds = append(bounds, amountOf(int(e.WaitingMessages))+from(own.WaitingMessages > 0, true))
	}
	if e.WaitingBytes > 0 && a.Mode != meter.POP3 {
		bounds = append(bounds, units.FormatSize(e.WaitingBytes)+from(own.WaitingBytes > 0, true))
	}
	if len(bounds) > 0 {
		line("may wait", "at most %s", strings.Join(bounds, " or "))
	}
}
