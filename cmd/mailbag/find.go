package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// A hit is an account in which a text was found, as it is in --json.
type hit struct {
	Account   string        `json:"account"`
	What      string        `json:"what"`  // in which of its properties
	Value     string        `json:"value"` // of that property
	Exact     bool          `json:"exact"`
	Deleted   time.Time     `json:"deleted,omitzero"`
	Mode      meter.Mode    `json:"mode,omitempty"`
	Suspended bool          `json:"suspended"`
	Customer  string        `json:"customer,omitempty"`
	Domain    string        `json:"domain,omitempty"` // the first
	Domains   int           `json:"domains"`          // how many
	*activity               // nil: the account is deleted
	Findings  []observation `json:"findings"`
}

// An observation says how an account is, and by which command more is seen of it.
type observation struct {
	Text string `json:"text"`
	See  string `json:"see,omitempty"`
}

// shownHits is how many accounts are shown where nobody says how many.
const shownHits = 10

func (c *console) findCommand() *cobra.Command {
	var asJSON bool
	limit := shownHits
	cmd := &cobra.Command{
		Use:   "find TEXT",
		Short: "Find whose something is, and say how it is with that account",
		Long: `Find the accounts that a text belongs to: a domain, or a name under it, an e-mail address, an IP address or network
from which customers ask for mail, a contact, a customer number, an account's name, or a part of one of them or of a
note. Each is shown with its state, with what stands against its mail, and with the command that shows more. Deleted accounts
are found too. Those that have just this text go before those of which it is a part. Status 1 says that nothing was found.`,
		Example: `  mailbag find second.example
  mailbag find joe@second.example
  mailbag find 192.0.2.7 --json`,
		Args:              arguments("TEXT"),
		ValidArgsFunction: c.completeOnly(meter.DomainNames),
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "show this `NUMBER` of accounts at most")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := strings.TrimSpace(args[0])
		switch {
		case limit < 1:
			return wrongUsage(cmd, "--limit: %d is less than 1", limit)
		case text == "":
			return wrongUsage(cmd, "the text to find is empty")
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			hits, more, err := d.find(ctx, text, limit)
			switch {
			case err != nil:
				return err
			case asJSON:
				err = d.json(hits)
			default:
				d.showHits(hits)
			}
			if more > 0 {
				d.note("%s more %s it as well; --limit shows more than %d", grouped(more), verb(more, "account has", "accounts have"), limit)
			}
			if len(hits) == 0 && err == nil {
				return fmt.Errorf("%s is not found in any account's name, customer number, domains, mailboxes, recipient list, networks, contact or note, nor in what deleted accounts had", visible(text))
			}
			return err
		})(cmd, args)
	}
	return cmd
}

func (d *desk) find(ctx context.Context, text string, limit int) (hits []hit, more int64, err error) {
	found, more, err := d.ledger.Find(ctx, text, limit)
	if err != nil {
		return nil, 0, err
	}
	var ids []int64
	for _, m := range found {
		ids = append(ids, m.ID)
	}
	month := d.thisMonth()
	listed, err := d.ledger.Listed(ctx, month, ids...)
	if err != nil {
		return nil, 0, err
	}
	accounts, err := d.ledger.LoadSome(ctx, ids...)
	if err != nil {
		return nil, 0, err
	}
	hits = []hit{}
	for _, m := range found {
		value := m.Value
		if m.What == "mailbox" || m.What == "recipient" {
			value = meter.Written(value)
		}
		h := hit{Account: m.Name, What: m.What, Value: value, Exact: m.Exact, Deleted: m.Deleted, Findings: []observation{}}
		at := slices.IndexFunc(listed, func(l meter.Listed) bool { return l.ID == m.ID })
		a := accounts.AccountByID(m.ID)
		if at < 0 || a == nil {
			h.Findings = append(h.Findings, observation{"the account is there no more", "mailbag account history " + m.Name})
		} else {
			l := listed[at]
			h.Mode, h.Suspended, h.Customer, h.Domain, h.Domains = l.Mode, l.Suspended, l.Customer, l.Domain, l.Domains
			now := activityOf(month, l)
			h.activity = &now
			if h.Findings, err = d.remarks(ctx, text, m, a, l); err != nil {
				return nil, 0, err
			}
		}
		hits = append(hits, h)
	}
	return hits, more, nil
}

// remarks are what stands against an account's mail, first what keeps it from coming in, then from going out.
func (d *desk) remarks(ctx context.Context, text string, m meter.Match, a *meter.Account, l meter.Listed) ([]observation, error) {
	var all []observation
	say := func(see, format string, args ...any) {
		all = append(all, observation{fmt.Sprintf(format, args...), see})
	}
	if a.Suspended {
		say("mailbag account resume "+a.Name, "suspended: new mail is deferred, and what waits is held")
	}
	d.remarkAddress(say, text, m, a)
	tariff := d.tariff().For(a)
	used, limit, bytes := tariff.Nearer(l.Usage)
	of := fmt.Sprintf("%s of %s messages", grouped(used), grouped(limit))
	if bytes {
		of = units.RoundSize(used) + " of " + exactSize(limit)
	}
	switch bound := tariff.Bound(); {
	case bound > 0 && tariff.Reached(l.Usage, bound):
		answer := "put off with 452"
		if tariff.OnLimit == meter.Reject {
			answer = "refused with 552"
		}
		say("mailbag usage "+a.Name+" --daily", "above its limit (%s, at most %s): its mail is %s until the month ends or the limit is raised",
			of, amountOfTiers(bound), answer)
	case tariff.Reached(l.Usage, 1):
		say("mailbag usage "+a.Name+" --daily", "its first tier is used up (%s); mail comes in and is billed", of)
	case l.Usage == meter.Usage{}:
		domain := cmp.Or(l.Domain, "its domain")
		if m.What == "domain" {
			domain = m.Value
		}
		say("host -t MX "+domain, "nothing came in %s: see that the MX record of %s names this server", d.thisMonth(), domain)
	}
	if a.Mode != meter.POP3 && a.InForce().Full(l.Waiting.Messages, l.Waiting.Bytes) {
		say("mailbag account show "+a.Name, "as much waits as may: new mail is put off with 452")
	}
	if err := d.remarkFetching(ctx, say, a, l); err != nil {
		return nil, err
	}
	say("mailbag trace "+traced(text, m)+" --since 1d", "the MTA's log has what became of each message")
	return all, nil
}

// traced are the flags by which mailbag trace finds the mail that was asked for.
func traced(text string, m meter.Match) string {
	switch address, err := meter.ParseAddress(text); {
	case m.What != "domain" && m.What != "mailbox" && m.What != "recipient":
		return "--account " + m.Name
	case err != nil:
		return "--to " + m.Value
	case strings.ContainsFunc(address.Local, needsQuotes):
		return "--to " + address.Domain
	default:
		return "--to " + address.String()
	}
}

// needsQuotes reports whether a shell could take a character for more than itself.
func needsQuotes(r rune) bool {
	return r < 'a' && !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || strings.ContainsRune("-+._=", r)) || 'z' < r && r <= unicode.MaxASCII
}

func amountOfTiers(n int64) string { return grouped(n) + verb(n, " tier", " tiers") }

// remarkAddress says why mail for what was asked for may not be the account's.
func (d *desk) remarkAddress(say func(see, format string, args ...any), text string, m meter.Match, a *meter.Account) {
	if m.What != "domain" || !m.Exact {
		return
	}
	domain, err := meter.NormalizeDomain(text)
	address, wrong := meter.ParseAddress(text)
	if wrong == nil {
		domain, err = address.Domain, nil
	}
	switch {
	case err == nil && domain != m.Value:
		say(fmt.Sprintf("mailbag domain add %s %s", a.Name, domain), "%s is no domain of its own, so mail for it is not taken", domain)
	case wrong != nil:
	case a.Recipients == meter.ListedRecipient:
		say("mailbag recipient list "+a.Name, "%s is not on its recipient list, so its mail is refused", address)
	case a.Mode == meter.POP3 && !a.CatchAll:
		say("mailbag mailbox list "+a.Name, "%s is none of its mailboxes, and it has no catch-all, so its mail is refused", address)
	}
}

// remarkFetching says what waits, and how the customer last fetched.
func (d *desk) remarkFetching(ctx context.Context, say func(see, format string, args ...any), a *meter.Account, l meter.Listed) error {
	fetched := "it never fetched any mail"
	if !l.Fetched.IsZero() {
		fetched = "it last fetched mail on " + d.stamp(l.Fetched)
	}
	waits := ""
	if l.Waiting.Messages > 0 {
		waits = fmt.Sprintf("%s %s since %s", amount(l.Waiting.Messages, l.Waiting.Bytes), verb(l.Waiting.Messages, "waits", "wait"), d.stamp(l.Waiting.Oldest))
	}
	switch a.Mode {
	case meter.Backup:
		say("mailbag queue "+a.Name, "%s", cmp.Or(waits, "nothing waits: its mail goes on to its server at once"))
		return nil
	case meter.POP3:
		sessions, err := d.ledger.PopSessions(ctx, a.Name, 1)
		if err != nil {
			return err
		}
		if len(sessions) > 0 && sessions[0].Outcome != "done" {
			fetched += fmt.Sprintf("; its last session, of %s, ended: %s", d.stamp(sessions[0].Began), sessions[0].Outcome)
		}
		if waits != "" {
			fetched = waits + "; " + fetched
		}
		say("mailbag sessions "+a.Name, "%s", fetched)
		return nil
	}
	if waits != "" {
		say("mailbag queue "+a.Name, "%s; %s", waits, fetched)
	} else {
		say("", "nothing waits; %s", fetched)
	}
	turns, err := d.ledger.Turns(ctx, a.Name, 1)
	switch {
	case err != nil:
		return err
	case len(turns) == 0:
		say("mailbag doctor", "nobody asked for a turn yet")
	case turns[0].Ended.IsZero():
		say("mailbag turns "+a.Name, "a turn is open since %s", d.stamp(turns[0].Began))
	default:
		say("mailbag turns "+a.Name, "its last turn, of %s, ended: %s", d.stamp(turns[0].Began), turns[0].Outcome)
	}
	return nil
}

func (d *desk) showHits(hits []hit) {
	for i, h := range hits {
		if i > 0 {
			d.say("")
		}
		where := h.What + " " + h.Value
		switch h.What {
		case "name":
			where = ""
		case "customer":
			where = "customer number " + h.Value
		case "note":
			where = fmt.Sprintf("note %q", h.Value)
		}
		if where != "" && !h.Exact {
			where = "in its " + where
		}
		state := "deleted"
		switch {
		case h.activity != nil:
			state = modeOf(h.Mode, h.Suspended)
			if h.What != "domain" && h.Domain != "" {
				state += ", " + firstOf(meter.Listed{Domain: h.Domain, Domains: h.Domains})
			}
			if h.Customer != "" && h.What != "customer" {
				state += ", customer " + h.Customer
			}
			state += fmt.Sprintf("; %s: %s", h.Month, amount(h.Usage.Messages, h.Usage.Bytes))
		case !h.Deleted.IsZero():
			state += " on " + d.stamp(h.Deleted)
		}
		if where != "" {
			state = where + "; " + state
		}
		fmt.Fprint(d.out, wrapped("", "    ", visible(h.Account+": "+state)))
		for _, r := range h.Findings {
			fmt.Fprint(d.out, wrapped("  ", "    ", visible(r.Text)))
			if r.See != "" {
				d.say("    see: %s", visible(r.See))
			}
		}
	}
}
