package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/claim"
	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

func (c *console) notifyCommand() *cobra.Command {
	var dryRun, asJSON bool
	var show string
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Mail customers about their limits and their waiting mail, and the operator about who does not fetch",
		Long: `Mail the contact of an account that has used 80 % of a monthly limit, all of it, and each further tier,
or gets no more mail by --on-limit or --max-tiers, and of one whose mail has waited for half of its hold time.
Each is said once; of several that came at once the highest is. On the first day of a month the one before is looked
at once more. Accounts without a contact are left out, or [notices] copy in the settings gets theirs.

Of accounts for which nobody has asked, by a turn or by POP3, for as long as [notices] silent says, the operator gets one
message with all that have become so: at [notices] copy, or as postmaster of this host. The contact of such an account is
told as soon as mail is here for it. Each silence is told once, until the customer asks again.

The notices go to the local MTA through sendmail(1), with the null sender. Your own texts, limit.txt, waiting.txt,
silent.txt and, for the operator, digest.txt, in the directory that [notices] templates names, take the place of the
built-in ones. Run this by a timer, hourly.`,
		Example: `  mailbag notify --dry-run
  mailbag notify
  mailbag notify --template limit > /etc/mailbag/notices/limit.txt`,
		Args: arguments(),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list what would be sent, and send nothing")
	cmd.Flags().StringVar(&show, "template", "", "write the built-in text `NAME`, one of "+strings.Join(noticeTexts, ", ")+", and do nothing else")
	jsonFlag(cmd, &asJSON)
	suggest(cmd, "template", cobra.FixedCompletions(noticeTexts, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("template") {
			text, err := builtIn.ReadFile("notices/" + show + ".txt")
			if err != nil {
				return wrongUsage(cmd, "--template: %q is none of %s", show, strings.Join(noticeTexts, ", "))
			}
			_, err = c.out.Write(text)
			return outputError(err)
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
			sent, err := d.notify(ctx, dryRun)
			if asJSON {
				return errors.Join(err, d.json(append([]sentNotice{}, sent...)))
			}
			for _, n := range sent {
				about := n.Subject
				if n.Account != "" {
					about = n.Account + ": " + about
				}
				d.say("%s, to %s", about, strings.Join(n.Recipients, ", "))
			}
			return err
		})(cmd, args)
	}
	return cmd
}

// sentNotice is one that was sent, or would be.
type sentNotice struct {
	Account    string   `json:"account"` // empty: of several, to the operator
	Subject    string   `json:"subject"`
	Level      int64    `json:"level"` // per cent of the limit, 50 more where mail stops, or per cent of the hold time; of silence who knows
	Recipients []string `json:"recipients"`
}

// notify makes the notices that are due, and hands to the MTA those and what an earlier run left. A notice
// is in the ledger before it is handed over: whoever dies in between leaves it to the next run, which sends it
// a second time at the most, with the same Message-ID.
func (d *desk) notify(ctx context.Context, dryRun bool) ([]sentNotice, error) {
	release, err := d.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return nil, err
	}
	due, failures, err := d.dueNotices(ctx, all, dryRun)
	if err != nil {
		return nil, err
	}
	unsent := due
	if !dryRun {
		if err := d.ledger.AddNotices(ctx, due...); err != nil {
			return nil, err
		}
		due = nil
	}
	if unsent, err = d.ledger.UnsentNotices(ctx); err != nil {
		return nil, err
	}
	var sent []sentNotice
	for _, n := range append(unsent, due...) {
		if len(n.Recipients) == 0 { // in a dry run
			continue
		}
		name := ""
		if a := all.AccountByID(n.Account); a != nil {
			name = a.Name
		} else if n.Account != 0 {
			name = "a deleted account"
		}
		if !dryRun {
			err := d.mta.Submit(ctx, n.Message, n.Recipients...)
			if err == nil {
				err = d.ledger.NoticeSent(ctx, n.ID, d.now())
			}
			if err != nil {
				failures = append(failures, fmt.Errorf("the notice to %s about %s is not known to be sent; the next run tries again: %w", strings.Join(n.Recipients, ", "), cmp.Or(name, n.Subject), err))
				if ctx.Err() != nil || errors.Is(err, meter.ErrUnavailable) {
					break
				}
				continue
			}
		}
		sent = append(sent, sentNotice{name, n.Subject, n.Level, n.Recipients})
	}
	return sent, errors.Join(failures...)
}

// alone keeps a second run from sending the same notices at the same time. The ledger's file itself is not locked,
// because that would disturb SQLite's locks.
func (d *desk) alone(ctx context.Context) (release func(), err error) {
	release, err = claim.Take(ctx, d.settings.Beside(), 0)
	switch {
	case errors.Is(err, claim.ErrTaken):
		return nil, errors.New("another mailbag notify runs at this moment; nothing was done")
	case err != nil:
		return nil, fmt.Errorf("it cannot be told whether another mailbag notify runs: %w", err)
	}
	return release, nil
}

// waitingSubject is the occasion of notices about waiting mail.
const waitingSubject = "waiting mail"

// halfHold is their level.
const halfHold = 50

// dueNotices makes the notices that nobody had yet, and ends the occasions that are over. One that cannot be
// written is a failure, and the others are made.
func (d *desk) dueNotices(ctx context.Context, all *meter.Directory, dryRun bool) (due []meter.Notice, failures []error, err error) {
	hostname, err := d.hostname(ctx)
	if err != nil {
		return nil, nil, err
	}
	texts, err := d.readNotices(hostname)
	if err != nil {
		return nil, nil, err
	}
	months, err := d.noticedMonths(ctx)
	if err != nil {
		return nil, nil, err
	}
	waiting, err := d.waits(ctx, all)
	if err != nil {
		return nil, nil, err
	}
	noticed, err := d.ledger.Noticed(ctx)
	if err != nil {
		return nil, nil, err
	}
	silences, err := d.silences(ctx)
	if err != nil {
		return nil, nil, err
	}
	post := postman{desk: d, hostname: hostname, noticed: noticed}
	for _, invoices := range months {
		month := invoices.Month
		for _, i := range invoices.Accounts {
			a, t := all.AccountByID(i.ID), i.Tariff
			level := limitLevel(t, i.Billed())
			if a == nil || month.Before(d.thisMonth()) && level < 100 {
				continue
			}
			subject := fmt.Sprintf("%s, limits of %d messages and %d octets", month, t.Messages, t.Bytes)
			if post.wants(a, subject, level) {
				post.write(a.Name, meter.Notice{Account: a.ID, Subject: subject, Level: level, Recipients: post.recipients(a)}, texts.limit, d.limitNotice(a, i, month, hostname))
			}
		}
	}
	var over []*meter.Account // whose mail does not wait for so long any more
	for a := range all.Accounts() {
		w := waiting[a.ID]
		if !d.waitsLong(a, w) {
			if noticed[occasion(a)] > 0 {
				over = append(over, a)
			}
		} else if post.wants(a, waitingSubject, halfHold) {
			post.write(a.Name, meter.Notice{Account: a.ID, Subject: waitingSubject, Level: halfHold, Recipients: post.recipients(a)}, texts.waiting, d.waitingNotice(a, w, hostname))
		}
	}
	heard := post.tellSilence(texts, all, silences, waiting)
	if !dryRun {
		err = errors.Join(d.endOccasions(ctx, all, over), d.ledger.EndOccasions(ctx, heard...))
	}
	return post.written, post.failures, err
}

// noticedMonths are the bills of the present month and, on its first day, those of the one before, as long as that is
// not closed: a limit may have been passed after the last run in it.
func (d *desk) noticedMonths(ctx context.Context) ([]*meter.Invoices, error) {
	month := d.thisMonth()
	present, err := d.invoices(ctx, month)
	if err != nil || d.local(d.now()).Day() > 1 {
		return []*meter.Invoices{present}, err
	}
	previous, err := d.invoices(ctx, month.Previous())
	if err != nil || !previous.Closed.IsZero() {
		return []*meter.Invoices{present}, err
	}
	return []*meter.Invoices{previous, present}, nil
}

// occasion is that of an account's waiting mail.
func occasion(a *meter.Account) meter.Occasion {
	return meter.Occasion{Account: a.ID, Subject: waitingSubject}
}

// waits is what waits for the accounts, by their IDs.
func (d *desk) waits(ctx context.Context, all *meter.Directory) (map[int64]meter.Waiting, error) {
	waiting, err := d.countQueue(ctx, all)
	if errors.Is(err, mta.ErrMissing) {
		return d.countIndex(ctx, all)
	}
	return waiting, err
}

// waitsLong reports whether mail has waited for half of the hold time.
func (d *desk) waitsLong(a *meter.Account, w meter.Waiting) bool {
	return w.Messages > 0 && d.now().Sub(w.Oldest) >= a.HoldTime()/2
}

// endOccasions lets the next waiting mail of the accounts be another occasion. They lack it in one listing of the
// queue, which can miss a message that moves between queues meanwhile: only what a second one lacks, too,
// is gone.
func (d *desk) endOccasions(ctx context.Context, all *meter.Directory, over []*meter.Account) error {
	if len(over) == 0 {
		return nil
	}
	again, err := d.waits(ctx, all)
	if err != nil {
		return err
	}
	var ended []meter.Occasion
	for _, a := range over {
		if !d.waitsLong(a, again[a.ID]) {
			ended = append(ended, occasion(a))
		}
	}
	return d.ledger.EndOccasions(ctx, ended...)
}

// limitLevel is how far a month has come, in per cent of the limit that is nearer: 80, 100, and at each tier
// above the first one hundreds of its number; 0 below all of them. Where no more mail is accepted it is half a
// hundred above that, and below the next tier, which a higher bound may let begin.
func limitLevel(t meter.Tariff, u meter.Usage) int64 {
	level := tierLevel(t, u)
	if stopped(t, u) {
		level += 50
	}
	return level
}

// stopped reports whether no more mail is accepted in this month.
func stopped(t meter.Tariff, u meter.Usage) bool { return t.Bound() > 0 && t.Reached(u, t.Bound()) }

func tierLevel(t meter.Tariff, u meter.Usage) int64 {
	const early = 80
	nearly := func(used, limit int64) bool {
		return limit > 0 && used >= limit/100*early+(limit%100*early+99)/100
	}
	switch tiers := t.Tiers(u); {
	case tiers > 1:
		return 100 * tiers
	case t.Reached(u, 1):
		return 100
	case nearly(u.Messages, t.Messages), nearly(u.Bytes, t.Bytes):
		return early
	}
	return 0
}

// A postman writes notices.
type postman struct {
	*desk
	hostname string
	noticed  map[meter.Occasion]int64
	written  []meter.Notice
	failures []error
}

// wants reports whether the level was not said yet, and somebody is there to hear it.
func (p *postman) wants(a *meter.Account, subject string, level int64) bool {
	return level > p.noticed[meter.Occasion{Account: a.ID, Subject: subject}] && len(p.recipients(a)) > 0
}

func (p *postman) recipients(a *meter.Account) []string {
	var to []string
	for _, address := range []string{a.Contact, p.settings.Notices.Copy} {
		if address != "" && !slices.Contains(to, address) {
			to = append(to, address)
		}
	}
	return to
}

// write completes a notice with its message, and reports whether that could be written.
func (p *postman) write(about string, n meter.Notice, text *template.Template, values any) bool {
	heading, body, err := fill(text, values)
	if err != nil {
		p.failures = append(p.failures, fmt.Errorf("the notice about %s cannot be written: %w", about, err))
		return false
	}
	from := p.settings.Notices.From
	if from == "" {
		from = "postmaster@" + p.hostname
	}
	n.Message = letter(from, n.Recipients[0], p.hostname, heading, body, p.local(p.now()))
	p.written = append(p.written, n)
	return true
}

// hostname is the name by which customers know this host: that of the settings, else the MTA's, else its
// own.
func (d *desk) hostname(ctx context.Context) (string, error) {
	if d.settings.Hostname != "" {
		return d.settings.Hostname, nil
	}
	id, err := d.mta.Identity(ctx)
	if errors.Is(err, mta.ErrMissing) {
		return os.Hostname()
	}
	return id.Hostname, err
}
