package main

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// addDomains reads what the domains of the accounts used, those that an account has and those that it had.
func (d *desk) addDomains(ctx context.Context, used []usedMonth, month meter.Month) error {
	ids := make([]int64, len(used))
	for n, m := range used {
		ids[n] = m.invoice.ID
	}
	counted, err := d.ledger.DomainUsage(ctx, month, ids...)
	if err != nil {
		return err
	}
	for n := range used {
		i := &used[n].invoice
		used[n].Domains = withUnused(counted[i.ID], i.Domains)
	}
	return nil
}

// withUnused adds the domains for which nothing was counted.
func withUnused(counted []meter.DomainUsage, domains []string) []meter.DomainUsage {
	all := append([]meter.DomainUsage{}, counted...)
	for _, domain := range domains {
		if !slices.ContainsFunc(counted, func(d meter.DomainUsage) bool { return d.Domain == domain }) {
			all = append(all, meter.DomainUsage{Domain: domain})
		}
	}
	slices.SortFunc(all, func(a, b meter.DomainUsage) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}

// showDomains lists the domains below their account.
func (d *desk) showDomains(used []usedMonth) {
	t := table{heads: []string{"ACCOUNT", "DOMAIN", ">MESSAGES", ">SIZE"}}
	var more, less bool
	for _, m := range used {
		t.add(called(m.invoice), "", grouped(m.Messages), units.RoundSize(m.Bytes))
		for _, domain := range m.Domains {
			t.add("", domain.Domain, grouped(domain.Messages), units.RoundSize(domain.Bytes))
		}
		order := cmp.Compare(sumOf(m.Domains).Messages, m.Messages)
		more, less = more || order > 0, less || order < 0
	}
	d.table(&t)
	if more {
		d.note("a message for several domains of an account counts in each of them, and once for the account")
	}
	if less {
		d.note("what was counted before mailbag kept the domains of messages, or was added by an adjustment, counts for the account alone")
	}
}

func sumOf(domains []meter.DomainUsage) (sum meter.Usage) {
	for _, d := range domains {
		sum.Messages += d.Messages
		sum.Bytes += d.Bytes
	}
	return sum
}
