package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// silentSubject is the occasion of notices about an account whose customer does not fetch.
const silentSubject = "mail not fetched"

// Their levels.
const (
	operatorKnows = 1
	customerKnows = 2
)

// maxDigest bounds how many accounts one message to the operator has.
const maxDigest = 1000

// silences are the accounts that have been silent for as long as the settings say; none where they say that nobody is.
func (d *desk) silences(ctx context.Context) ([]meter.Listed, error) {
	if d.settings.Notices.Silent == 0 {
		return nil, nil
	}
	return d.ledger.Select(ctx, meter.Selection{Silent: d.settings.Notices.Silent, Sort: meter.ByFetched})
}

// lastFetched is when mail of an account was last fetched, in a listing.
func (d *desk) lastFetched(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return d.stamp(at)
}

// silentAccount is an account that does not fetch, with what is here for it.
type silentAccount struct {
	*meter.Account
	fetched time.Time     // when mail was last fetched; zero: never
	here    meter.Waiting // in the MTA's queue, and in mailboxes
	known   int64         // to whom
}

// tellSilence writes to the operator, in one message, about accounts that have become silent, and to the contact of each
// for which mail is here. It returns the occasions that are over.
func (p *postman) tellSilence(texts *notices, all *meter.Directory, silences []meter.Listed, waiting map[int64]meter.Waiting) (over []meter.Occasion) {
	still := map[int64]bool{}
	var untold, fresh []silentAccount // fresh are those of which nobody knows
	for _, s := range silences {
		still[s.ID] = true
		a := all.AccountByID(s.ID)
		if a == nil { // deleted in between
			continue
		}
		known := p.noticed[meter.Occasion{Account: a.ID, Subject: silentSubject}]
		if known == customerKnows || known == operatorKnows && a.Contact == "" {
			continue
		}
		silent := silentAccount{a, s.Fetched, p.here(a, waiting[a.ID]), known}
		untold = append(untold, silent)
		if known == 0 {
			fresh = append(fresh, silent)
		}
	}
	digested := len(fresh) > 0 && p.writeDigest(texts.digest, fresh)
	for _, s := range untold {
		n := meter.Notice{Account: s.ID, Subject: silentSubject, Level: customerKnows, Recipients: []string{s.Contact}}
		switch {
		case s.known == 0 && !digested: // the next run tells both
		case s.Contact != "" && s.here.Messages > 0 && p.write(s.Name, n, texts.silent, p.silentNotice(s, p.hostname)):
		case s.known == 0:
			n.Level, n.Recipients = operatorKnows, nil
			p.written = append(p.written, n)
		}
	}
	for o := range p.noticed {
		if o.Subject == silentSubject && !still[o.Account] {
			over = append(over, o)
		}
	}
	return over
}

// here is what waits for an account and what its mailboxes hold.
func (p *postman) here(a *meter.Account, waiting meter.Waiting) meter.Waiting {
	if a.Mode != meter.POP3 {
		return waiting
	}
	stored, err := p.store().Stored(a.Name)
	if err != nil {
		p.failures = append(p.failures, fmt.Errorf("it cannot be told what is stored for %s, who does not fetch: %w", a.Name, p.unreadable(err)))
	}
	waiting.Messages += stored.Messages
	waiting.Bytes += stored.Bytes
	return waiting
}

func (p *postman) writeDigest(text *template.Template, fresh []silentAccount) bool {
	var names []string
	for _, s := range fresh {
		names = append(names, s.Name)
	}
	to := cmp.Or(p.settings.Notices.Copy, "postmaster@"+p.hostname)
	const about = "accounts that do not fetch"
	return p.write(about, meter.Notice{Subject: about + ": " + few(names), Level: operatorKnows, Recipients: []string{to}},
		text, p.digestNotice(fresh, p.hostname))
}

// silentNotice is what silent.txt may name.
type silentNotice struct {
	Account, Customer, Domains, Hostname string
	Silent                               string // "7 days", for which nobody asked at least
	Fetched                              string // when mail was last fetched; empty: never
	Messages, Size                       string // that are here: "3 messages"
	Hold, Returns                        string // when the oldest that waits goes back; empty where none does
	Mode                                 string // "etrn", "atrn" or "pop3"
	Host                                 string // the customer's server
	TurnPort                             string // where ATRN is said
}

func (d *desk) silentNotice(s silentAccount, hostname string) silentNotice {
	port, _ := d.turnPort()
	n := silentNotice{
		Account: s.Name, Customer: s.Customer, Domains: few(inOwnLetters(s.Domains)), Hostname: hostname, Silent: span(d.settings.Notices.Silent),
		Messages: amountOf(int(s.here.Messages)), Size: units.RoundSize(s.here.Bytes), Hold: span(s.HoldTime()),
		Mode: string(s.Mode), Host: hostInOwnLetters(s.Host), TurnPort: port,
	}
	if !s.fetched.IsZero() {
		n.Fetched = d.moment(s.fetched)
	}
	if !s.here.Oldest.IsZero() {
		n.Returns = d.moment(s.here.Oldest.Add(s.HoldTime()))
	}
	return n
}

// digestNotice is what digest.txt may name.
type digestNotice struct {
	Hostname         string
	Silent, Duration string // "7 days", and "7d" as a flag has it
	Count            int    // accounts that have become silent
	Table            string // a line for each of them, up to some number
	More             int    // that are not in it
}

func (d *desk) digestNotice(fresh []silentAccount, hostname string) digestNotice {
	n := digestNotice{Hostname: hostname, Silent: span(d.settings.Notices.Silent), Duration: units.FormatDuration(d.settings.Notices.Silent), Count: len(fresh)}
	if n.More = max(0, len(fresh)-maxDigest); n.More > 0 {
		fresh = fresh[:maxDigest]
	}
	t := table{heads: []string{"ACCOUNT", "MODE", "LAST FETCHED", ">MESSAGES", ">SIZE", "CONTACT"}}
	called := slices.ContainsFunc(fresh, func(s silentAccount) bool { return s.Customer != "" })
	if called {
		t.heads = append(t.heads, "CUSTOMER")
	}
	for _, s := range fresh {
		cells := []string{s.Name, string(s.Mode), d.lastFetched(s.fetched), grouped(s.here.Messages), units.RoundSize(s.here.Bytes), s.Contact}
		if called {
			cells = append(cells, s.Customer)
		}
		t.add(cells...)
	}
	n.Table = strings.Join(slices.Collect(t.lines()), "\n") + "\n"
	return n
}

// silentSamples are all that can be said to a customer who does not fetch.
func (d *desk) silentSamples(hostname string) (all []any) {
	for _, s := range d.sampleSilences() {
		all = append(all, d.silentNotice(s, hostname))
	}
	return all
}

// digestSamples are all that can be said of such customers.
func (d *desk) digestSamples(hostname string) []any {
	all := d.sampleSilences()
	return []any{d.digestNotice(all[:1], hostname), d.digestNotice(all, hostname)}
}

func (d *desk) sampleSilences() (all []silentAccount) {
	for _, mode := range []meter.Mode{meter.ETRN, meter.ATRN, meter.POP3} {
		a := sampleAccount()
		a.Mode = mode
		since := d.now().Add(-d.settings.Notices.Silent)
		here := meter.Waiting{Messages: 3, Bytes: 4_100}
		if mode.Held() {
			here.Oldest = since
		}
		for _, fetched := range []time.Time{{}, since} {
			all = append(all, silentAccount{Account: &a, fetched: fetched, here: here})
		}
	}
	return all
}
