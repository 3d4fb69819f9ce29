package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

//go:embed pages
var pages embed.FS

// page reads one of the HTML pages, each of which is whole in itself: no script, and nothing from elsewhere.
func page(name string) *template.Template {
	return template.Must(template.ParseFS(pages, "pages/page.html", "pages/"+name)).Lookup(name)
}

func (c *console) statementCommand() *cobra.Command {
	var month monthFlag
	var file string
	cmd := &cobra.Command{
		Use:   "statement NAME --month MONTH --html FILE",
		Short: "Write an account's month as a page for the customer",
		Long: `Write an account's month as a page for the customer: a chart of its days with the limit, the tiers and the
amount. The page is one file without scripts and without anything from elsewhere, and prints on A4. That of
a closed month stays the same whenever it is written.

` + outputMeaning,
		Example:           "  mailbag statement acme --month 2026-02 --html acme-2026-02.html",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().SortFlags = false
	month.add(cmd)
	cmd.Flags().StringVar(&file, "html", "", "new `FILE` to write; - is stdout")
	if err := cmd.MarkFlagFilename("html", "html"); err != nil {
		panic(err) // only where the flag does not exist
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case month.text == "":
			return wrongUsage(cmd, "--month is missing")
		case file == "":
			return wrongUsage(cmd, "--html is missing: the file to write")
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
			m, err := month.orPresent(cmd, d)
			if err != nil {
				return err
			}
			text, err := d.statement(ctx, args[0], m)
			if err != nil {
				return err
			}
			if made, err := d.writeText(file, text, 0o644); !made || err != nil {
				return err
			}
			d.say("wrote the statement of %s for %s to %s", args[0], m, file)
			return nil
		})(cmd, args)
	}
	return cmd
}

// statementPage is what statement.html has, written as a customer reads it.
type statementPage struct {
	Title, Account, Month        string
	Customer                     string // in the operator's books
	Domains                      []string
	Few                          string // of many domains, which are then listed at the end
	Closed, AsOf                 string // of a closed month and of an open one
	Messages, Size, Tiers        string
	TierMessages, TierSize       string
	Decided                      string
	Base, TierPrice, Further     string
	Part                         string // of the base price, of a first month
	Spared                       string // size above the bound that is not billed
	Additional, Total, Currency  string
	CountedMessages, CountedSize string
	Adjustments                  []struct{ Reason, At, Messages, Size string }
	Plots                        []plot           // of which the page shows the one that fits
	Days                         [][]statementDay // in lists that stand side by side where there is room
	ByDomain                     []statementDomain
	Shared                       bool // messages for several domains are among them
}

// statementDomain is a line of the list of domains.
type statementDomain struct{ Domain, Messages, Size string }

// statementDay is a line of the list of days.
type statementDay struct {
	Day            int
	Messages, Size string
}

// maxNamed is how many domains are named before all else.
const maxNamed = 6

// dayRows is how long such a list is: three of them are a month.
const dayRows = 11

func (d *desk) statement(ctx context.Context, name string, month meter.Month) ([]byte, error) {
	all, err := d.invoices(ctx, month, name)
	if err != nil {
		return nil, err
	}
	i := all.Accounts[0]
	used, err := d.ledger.DailyUsage(ctx, i.ID, month)
	if err != nil {
		return nil, err
	}
	u := i.Usage()
	p := statementPage{
		Account: i.Account, Customer: i.Customer, Month: monthName(month), Domains: inOwnLetters(i.Domains),
		Messages: grouped(u.Messages), Size: units.RoundSize(u.Bytes), Tiers: grouped(i.Tiers()),
		TierMessages: grouped(i.Tariff.Messages), TierSize: exactSize(i.Tariff.Bytes),
		Decided: map[string]string{"messages": "messages", "bytes": "size", "both": "messages and size"}[i.Decided()],
		Base:    money(i.Base()), TierPrice: money(i.Tariff.TierPrice),
		Additional: money(i.Additional()), Total: money(i.Total()), Currency: i.Tariff.Currency,
		CountedMessages: grouped(i.Counted.Messages), CountedSize: units.RoundSize(i.Counted.Bytes),
	}
	if len(p.Domains) > maxNamed {
		p.Few = few(p.Domains)
	}
	p.Title = p.Account + ", " + p.Month
	if i.Prorated() {
		p.Part = partOf(i)
	}
	if further := i.Tiers() - 1; further > 0 {
		p.Further = grouped(further)
	}
	if spared := u.Bytes - i.Billed().Bytes; spared > 0 {
		p.Spared = units.RoundSize(spared)
	}
	days := month.Days()
	if all.Closed.IsZero() {
		p.AsOf = d.moment(d.now())
		if month == d.thisMonth() {
			days = d.local(d.now()).Day()
		}
	} else {
		p.Closed = d.moment(all.Closed)
	}
	for _, a := range i.Adjustments {
		p.Adjustments = append(p.Adjustments, struct{ Reason, At, Messages, Size string }{
			a.Reason, d.date(a.At), signed(a.Messages, grouped), signed(a.Bytes, units.RoundSize)})
	}
	byDay := make([]meter.Usage, month.Days())
	for _, day := range used {
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(day.Day, month.String()+"-"), "%d", &n); err != nil || n < 1 || n > len(byDay) {
			return nil, fmt.Errorf("the ledger has usage on the day %q, which %s does not have", day.Day, month)
		}
		byDay[n-1] = day.Usage
	}
	lines := make([]statementDay, days)
	for n, u := range byDay[:days] {
		lines[n] = statementDay{n + 1, grouped(u.Messages), units.RoundSize(u.Bytes)}
	}
	p.Days = slices.Collect(slices.Chunk(lines, dayRows))
	for _, f := range frames {
		p.Plots = append(p.Plots, newPlot(f, i, byDay[:days], month.Days()))
	}
	domains, err := d.ledger.DomainUsage(ctx, month, i.ID)
	if err != nil {
		return nil, err
	}
	if used := domains[i.ID]; len(used) > 1 {
		for _, u := range used {
			p.ByDomain = append(p.ByDomain, statementDomain{inOwnLetters([]string{u.Domain})[0], grouped(u.Messages), units.RoundSize(u.Bytes)})
		}
		p.Shared = sumOf(used).Messages > i.Counted.Messages
	}
	var text bytes.Buffer
	err = page("statement.html").Execute(&text, p)
	return text.Bytes(), err
}
