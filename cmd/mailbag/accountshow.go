package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/popd"
)

// listedAccount is an account in --json. The terms are the account's own; effective is what is in force. Sizes are
// octets, hold is seconds.
type listedAccount struct {
	Name       string               `json:"name"`
	Customer   string               `json:"customer"`
	Note       string               `json:"note"`
	Mode       meter.Mode           `json:"mode"`
	Suspended  bool                 `json:"suspended"`
	Domains    []string             `json:"domains"`
	Host       string               `json:"host"`
	TLS        meter.TLSLevel       `json:"tls"`
	Networks   []string             `json:"networks"`
	Recipients meter.RecipientCheck `json:"recipients"`
	Mailboxes  []string             `json:"mailboxes"`
	Plan       string               `json:"plan"` // empty: none
	termsDocument
	Hold      int64        `json:"hold"`
	Contact   string       `json:"contact"`
	Copies    meter.Copies `json:"copies"`
	CatchAll  bool         `json:"catch_all"`
	Quota     int64        `json:"quota"`
	CRAMMD5   bool         `json:"cram_md5"`
	Created   time.Time    `json:"created"`
	Effective effective    `json:"effective"`
}

type effective struct {
	effectiveTerms
	Hold int64 `json:"hold"`
}

// shownAccount is what account show adds to it.
type shownAccount struct {
	listedAccount
	RecipientCount int  `json:"recipient_count"`
	PasswordSet    bool `json:"password_set"`
	activity
	Stored   *popd.Stored `json:"stored"`   // null: it cannot be counted
	Orphaned *popd.Stored `json:"orphaned"` // what nobody can fetch any more; null likewise

	account *meter.Account
}

func (d *desk) document(all *meter.Directory, a *meter.Account) listedAccount {
	l := listedAccount{
		Name: a.Name, Customer: a.Customer, Note: a.Note, Mode: a.Mode, Suspended: a.Suspended, Domains: append([]string{}, a.Domains...), Host: a.Host,
		TLS: a.TLS, Networks: []string{}, Recipients: a.Recipients, Mailboxes: written(all.Mailboxes(a)),
		Plan: a.Plan, termsDocument: documentOf(a.Terms), Hold: int64(a.Hold / time.Second),
		Contact: a.Contact, Copies: a.Copies, CatchAll: a.CatchAll, Quota: a.Quota, CRAMMD5: a.CRAMMD5, Created: a.Created,
		Effective: effective{d.effective(a), int64(a.HoldTime() / time.Second)},
	}
	for _, network := range a.Networks {
		l.Networks = append(l.Networks, network.String())
	}
	return l
}

// few names the first of a list and how many there are besides.
func few(names []string) string {
	if len(names) <= 2 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

func (c *console) accountShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show an account with what is in force, this month's usage, what waits and what is stored",
		Example:           "  mailbag account show acme",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	jsonFlag(cmd, &asJSON)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		s, err := d.shown(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return d.json(s)
		}
		d.showAccount(s)
		return nil
	})
	return cmd
}

func (d *desk) shown(ctx context.Context, name string) (*shownAccount, error) {
	all, a, err := d.account(ctx, name)
	if err != nil {
		return nil, err
	}
	month := d.thisMonth()
	s := &shownAccount{listedAccount: d.document(all, a), account: a}
	if s.RecipientCount, err = d.ledger.RecipientCount(ctx, a.ID); err != nil {
		return nil, err
	}
	v, err := d.ledger.Verifier(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	s.PasswordSet = v != nil
	listed, err := d.ledger.Listed(ctx, month, a.ID)
	switch {
	case err != nil:
		return nil, err
	case len(listed) == 0: // it was deleted meanwhile
		return nil, fmt.Errorf("%s: %w", name, meter.ErrNoAccount)
	}
	s.activity = activityOf(month, listed[0])
	if s.Stored, s.Orphaned, err = d.counted(all, a.Name); err != nil {
		d.note("warning: %v", err)
	}
	return s, nil
}

// counted is the mail in an account's mailboxes, and that which is nobody's; neither where it cannot be counted.
func (d *desk) counted(all *meter.Directory, name string) (stored, orphaned *popd.Stored, err error) {
	in, err := d.store().Stored(name)
	if err != nil {
		return nil, nil, err
	}
	holdings, err := d.store().Orphans(all, name)
	if err != nil {
		return nil, nil, err
	}
	var nobodys popd.Stored
	for _, o := range holdings {
		nobodys.Messages += o.Messages
		nobodys.Bytes += o.Bytes
	}
	return &in, &nobodys, nil
}

// showAccount writes an account for a reader: what is in force, and where it comes from.
func (d *desk) showAccount(s *shownAccount) {
	t := table{heads: []string{"", ""}}
	line := func(name, format string, args ...any) { t.add(name, fmt.Sprintf(format, args...)) }
	if s.Customer != "" {
		line("customer", "%s", s.Customer)
	}
	if s.Note != "" {
		line("note", "%s", s.Note)
	}
	line("mode", "%s, %s", s.Mode, map[bool]string{true: "suspended", false: "in service"}[s.Suspended])
	for i, domain := range s.Domains {
		line(first(i, "domains"), "%s", domain)
	}
	switch {
	case s.Host != "":
		line("host", "%s", s.Host)
	case s.Mode == meter.Backup:
		line("host", "by MX")
	}
	if s.Mode == meter.Backup || s.Mode != meter.POP3 && s.Host != "" {
		line("tls", "%s", s.TLS)
	}
	for i, network := range s.Networks {
		line(first(i, "networks"), "%s", network)
	}
	line("recipients", "%s, %s listed", s.Recipients, grouped(int64(s.RecipientCount)))
	if s.Mode == meter.POP3 {
		line("catch-all", "%s, copies %s", map[bool]string{true: "yes", false: "no"}[s.CatchAll], s.Copies)
		for i, mailbox := range s.Mailboxes {
			line(first(i, "mailboxes"), "%s", mailbox)
		}
		if s.Quota > 0 {
			line("quota", "%s", units.FormatSize(s.Quota))
		}
	}
	switch {
	case s.Stored == nil:
		line("stored", "not known")
	case s.Mode == meter.POP3 || s.Stored.Messages > 0:
		line("stored", "%s", amount(s.Stored.Messages, s.Stored.Bytes))
	}
	if s.Orphaned != nil && s.Orphaned.Messages > 0 {
		line("orphaned", "%s", amount(s.Orphaned.Messages, s.Orphaned.Bytes))
	}
	if hasLogin(&meter.Account{Mode: s.Mode, CatchAll: s.CatchAll}) {
		line("password", "%s%s", map[bool]string{true: "set", false: "none"}[s.PasswordSet],
			map[bool]string{true: ", with CRAM-MD5"}[s.CRAMMD5])
	}
	if s.Plan != "" {
		line("plan", "%s", s.Plan)
	}
	d.showTerms(&t, s.account)
	line("hold", "%s%s", units.FormatDuration(time.Duration(s.Effective.Hold)*time.Second), map[bool]string{true: " (own)", false: " (default)"}[s.Hold > 0])
	if s.Contact != "" {
		line("contact", "%s", s.Contact)
	}
	line("created", "%s", d.stamp(s.Created))
	line(s.Month, "%s", amount(s.Usage.Messages, s.Usage.Bytes))
	if s.Waiting.Messages > 0 {
		line("waiting", "%s, oldest of %s", amount(s.Waiting.Messages, s.Waiting.Bytes),
			d.stamp(s.Waiting.Oldest))
	} else if s.Mode.Held() || s.Suspended {
		line("waiting", "nothing")
	}
	switch {
	case s.Mode != meter.Backup || !s.LastFetched.IsZero():
		line("last fetched", "%s", d.lastFetched(s.LastFetched))
	}
	d.say("%s", s.Name)
	d.table(&t)
}

// first names the first line of several.
func first(i int, name string) string {
	if i > 0 {
		return ""
	}
	return name
}
