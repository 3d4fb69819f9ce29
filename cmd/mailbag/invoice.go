package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// monthFlag is --month.
type monthFlag struct {
	month meter.Month
	text  string // empty: not given
}

func (m *monthFlag) add(cmd *cobra.Command) { cmd.Flags().Var(m, "month", "as YYYY-MM") }

func (m *monthFlag) String() string { return m.text }
func (m *monthFlag) Type() string   { return "MONTH" }

func (m *monthFlag) Set(s string) (err error) {
	m.text = s
	m.month, err = meter.ParseMonth(s)
	return err
}

// orPresent is the month that was given, or else the present one. One that has not begun is refused.
func (m *monthFlag) orPresent(cmd *cobra.Command, d *desk) (meter.Month, error) {
	present := d.thisMonth()
	switch {
	case m.text == "":
		return present, nil
	case present.Before(m.month):
		return meter.Month{}, wrongUsage(cmd, "--month: %s has not begun", m.month)
	}
	return m.month, nil
}

// invoices reads the bills of all accounts, or of the named one.
func (d *desk) invoices(ctx context.Context, month meter.Month, names ...string) (*meter.Invoices, error) {
	all, err := d.ledger.Invoices(ctx, month, d.tariff(), names...)
	if err == nil && len(names) > 0 && len(all.Accounts) == 0 {
		return nil, fmt.Errorf("%s: %w in %s, or it was deleted and not used then", names[0], meter.ErrNoAccount, month)
	}
	return all, err
}

func (c *console) invoiceCommand() *cobra.Command {
	var month monthFlag
	var asCSV, asJSON, closes bool
	cmd := &cobra.Command{
		Use:   "invoice --month MONTH [NAME]",
		Short: "Bill the accounts for a month",
		Long: `Bill the accounts for a month: what each used, the tiers, which of the two limits made them, and the
amount. Adjustments have lines of their own; the account's numbers have them in. With --on-limit defer or reject,
or --max-tiers, of an account, its last message begins no further tier; what an earlier setting let in, or
an adjustment added, does. Where [billing] prorate is set, an account's first month has the base price of the days from
its first one on.

A bill is provisional until --close keeps the month's bills for ever, with the prices, limits and plans in force
then. A month can be closed once it is over. A closed month cannot be adjusted any more, and prints
the same whatever changes later.`,
		Example: `  mailbag invoice --month 2026-02
  mailbag invoice --month 2026-02 --close
  mailbag invoice --month 2026-02 acme --csv`,
		Args:              arguments("[NAME]"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().SortFlags = false
	month.add(cmd)
	cmd.Flags().BoolVar(&closes, "close", false, "close the month first, if it is not closed yet")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "write CSV (RFC 4180), for spreadsheets")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := together(cmd, "csv", "json"); err != nil {
			return err
		}
		switch {
		case month.text == "":
			return wrongUsage(cmd, "--month is missing")
		case closes && len(args) > 0:
			return wrongUsage(cmd, "--close closes a month for all accounts; leave out %s", args[0])
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
			m, err := month.orPresent(cmd, d)
			if err != nil {
				return err
			}
			if closes {
				err := d.ledger.CloseMonth(ctx, m, d.tariff())
				if errors.Is(err, meter.ErrMonthClosed) {
					d.note("%s was closed already", m)
				} else if err != nil {
					return err
				}
			}
			invoices, err := d.invoices(ctx, m, args...)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(d.billDocuments(invoices))
			case asCSV:
				return d.billCSV(invoices)
			}
			d.showBills(invoices)
			return nil
		})(cmd, args)
	}
	return cmd
}

// billDocument is a bill in --json. Amounts are in the currency's unit.
type billDocument struct {
	Account      string               `json:"account"`
	Customer     string               `json:"customer"`
	Plan         string               `json:"plan"` // empty: none
	Month        string               `json:"month"`
	Status       string               `json:"status"` // "provisional" or "closed"
	Closed       time.Time            `json:"closed,omitzero"`
	Mode         meter.Mode           `json:"mode"`
	Deleted      bool                 `json:"deleted"`
	Domains      []string             `json:"domains"`
	Messages     int64                `json:"messages"`
	Bytes        int64                `json:"bytes"`
	Counted      meter.Usage          `json:"counted"` // without the adjustments
	Adjustments  []adjustmentDocument `json:"adjustments"`
	TierMessages int64                `json:"tier_messages"`
	TierBytes    int64                `json:"tier_bytes"`
	Tiers        int64                `json:"tiers"`
	DecidedBy    string               `json:"decided_by"` // "messages", "bytes", "both"; empty: neither limit was passed
	BasePrice    string               `json:"base_price"` // of a whole month
	Days         int                  `json:"days"`       // of the month that it is billed for
	Base         string               `json:"base"`       // and what that is
	TierPrice    string               `json:"tier_price"`
	Additional   string               `json:"additional"`
	Total        string               `json:"total"`
	Currency     string               `json:"currency"`
}

type adjustmentDocument struct {
	meter.Usage
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
}

func billStatus(all *meter.Invoices) string {
	if all.Closed.IsZero() {
		return "provisional"
	}
	return "closed"
}

func (d *desk) billDocuments(all *meter.Invoices) []billDocument {
	documents := []billDocument{}
	for _, i := range all.Accounts {
		u := i.Usage()
		b := billDocument{
			Account: i.Account, Customer: i.Customer, Plan: i.Plan, Month: all.Month.String(), Status: billStatus(all), Closed: all.Closed, Mode: i.Mode, Deleted: i.Deleted,
			Domains: i.Domains, Messages: u.Messages, Bytes: u.Bytes, Counted: i.Counted, Adjustments: []adjustmentDocument{},
			TierMessages: i.Tariff.Messages, TierBytes: i.Tariff.Bytes, Tiers: i.Tiers(), DecidedBy: i.Decided(),
			BasePrice: i.Tariff.BasePrice.String(), Days: i.Days, Base: i.Base().String(), TierPrice: i.Tariff.TierPrice.String(), Additional: i.Additional().String(),
			Total: i.Total().String(), Currency: i.Tariff.Currency,
		}
		for _, a := range i.Adjustments {
			b.Adjustments = append(b.Adjustments, adjustmentDocument(a))
		}
		documents = append(documents, b)
	}
	return documents
}

// billCSV writes a record for each account, and one for each of its adjustments, which have no amounts:
// they are in the account's.
func (d *desk) billCSV(all *meter.Invoices) error {
	w := csv.NewWriter(d.out)
	w.UseCRLF = true // RFC 4180, section 2
	records := [][]string{{"month", "status", "line", "account", "domains", "messages", "bytes", "tiers", "decided_by",
		"base", "additional", "total", "currency", "reason", "customer", "plan", "days"}}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, i := range all.Accounts {
		u := i.Usage()
		records = append(records, []string{all.Month.String(), billStatus(all), "account", i.Account, strings.Join(i.Domains, " "),
			number(u.Messages), number(u.Bytes), number(i.Tiers()), i.Decided(),
			i.Base().String(), i.Additional().String(), i.Total().String(), i.Tariff.Currency, "",
			freeText(i.Customer), i.Plan, strconv.Itoa(i.Days)})
		for _, a := range i.Adjustments {
			records = append(records, []string{all.Month.String(), billStatus(all), "adjustment", i.Account, "",
				number(a.Messages), number(a.Bytes), "", "", "", "", "", "", freeText(a.Reason), freeText(i.Customer), i.Plan, ""})
		}
	}
	return outputError(w.WriteAll(records))
}

// freeText keeps a spreadsheet from taking a text for a formula (OWASP, CSV Injection), or for what it makes of others.
func freeText(s string) string {
	if mistaken(s) {
		return "'" + s
	}
	return s
}

// freedText is the text that freeText was given.
func freedText(s string) string {
	if text, quoted := strings.CutPrefix(s, "'"); quoted && mistaken(s) {
		return text
	}
	return s
}

// mistaken reports whether a text, quoted or not, begins like a formula or is like one that a spreadsheet spoiled.
func mistaken(s string) bool {
	s = strings.TrimLeft(s, "'")
	first, _ := utf8.DecodeRuneInString(s)
	return strings.ContainsRune("=+-@＝＋－＠", first) || spoiled(s) != ""
}

func (d *desk) showBills(all *meter.Invoices) {
	if all.Closed.IsZero() {
		d.say("%s, provisional: the month is not closed", all.Month)
	} else {
		d.say("%s, closed on %s by %s", all.Month, d.moment(all.Closed), all.ClosedBy)
	}
	t := table{heads: []string{"ACCOUNT", "CUSTOMER", "DOMAINS", ">MESSAGES", ">SIZE", ">TIERS", "BY", ">BASE", ">ADDITIONAL", ">TOTAL", ""}}
	totals := map[string]meter.Cents{}
	for _, i := range all.Accounts {
		u := i.Usage()
		t.add(called(i), i.Customer, few(i.Domains), grouped(u.Messages), units.RoundSize(u.Bytes), grouped(i.Tiers()), i.Decided(),
			money(i.Base()), money(i.Additional()), money(i.Total()), i.Tariff.Currency)
		totals[i.Tariff.Currency] = totals[i.Tariff.Currency].Plus(i.Total())
		if i.Prorated() {
			t.add("", "", "  "+partOf(i), "", "", "", "", "", "", "", "")
		}
		for _, a := range i.Adjustments {
			t.add("", "", "  adjusted: "+a.Reason, signed(a.Messages, grouped), signed(a.Bytes, units.RoundSize), "", "", "", "", "", "")
		}
	}
	if len(all.Accounts) > 1 {
		for _, currency := range slices.Sorted(maps.Keys(totals)) {
			t.add("", "", "", "", "", "", "", "", "", money(totals[currency]), currency)
		}
	}
	t.dropEmpty("CUSTOMER")
	d.table(&t)
}

// partOf is which part of its base price an account's first month is billed by.
func partOf(i meter.Invoice) string {
	return fmt.Sprintf("%d of %d days of %s", i.Days, i.MonthDays, money(i.Tariff.BasePrice))
}
