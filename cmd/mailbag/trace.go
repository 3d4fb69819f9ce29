package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/trace"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
	"mailbag/popd"
)

// tracedMessages is how many messages are told of where nobody says how many.
const tracedMessages = 20

// mostTraced bounds what is kept in memory of a log.
const mostTraced = 1000

func (c *console) traceCommand() *cobra.Command {
	var query trace.Query
	var since, until instantFlag
	var account string
	var logs []string
	var asJSON bool
	limit := tracedMessages
	cmd := &cobra.Command{
		Use:   "trace [TEXT]",
		Short: "Tell what became of a message: where is the mail from X to Y?",
		Long: `Tell of each message that fits all that is asked for when it came and for whom it was counted, and of each
recipient what happened since: refused and why, waiting and why, delivered in which turn, put into a mailbox
and fetched in which session, relayed with which reply, returned, discarded. TEXT is a part of a line of the log, such as the
address of a client.

This is read from the log of the MTA, files with what was rotated or else the journal, from its queue, from the ledger and
from the journal of mailbag-popd. The ledger has neither senders nor recipients: what is no longer in the log cannot be told.
With --log it is these files instead, of the MTA and of mailbag-popd alike; .gz and .bz2 are unpacked. Exim names a recipient
when it delivers to him; with log_selector = +received_recipients also when the message comes.

A MOMENT is a time such as "2026-02-03" or "2026-02-03 10:00", in the billing time zone, or how long ago it was, such as 2h.`,
		Example: `  mailbag trace --to second.example --since 1d
  mailbag trace --from boss@elsewhere.example --to ford@dent.example
  mailbag trace --account acme --since "2026-02-03 10:00" --until "2026-02-03 12:00"
  mailbag trace --id 4Xy1Zz0c1Tz9vNl
  mailbag trace --id '<20260203.1@elsewhere.example>' --json
  mailbag trace 192.0.2.7 --log /srv/logs/mail.log --log /srv/logs/mail.log.1.gz`,
		Args: arguments("[TEXT]"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&query.From, "from", "", "its sender: an `ADDRESS`, a domain, or <> for bounces")
	f.StringVar(&query.To, "to", "", "one of its recipients: an `ADDRESS` or a domain")
	f.StringVar(&query.ID, "id", "", "its queue `ID`, or its Message-ID")
	f.StringVar(&account, "account", "", "a recipient is of the account `NAME`")
	f.Var(&since, "since", "something happened to it after this `MOMENT`")
	f.Var(&until, "until", "and before this `MOMENT`")
	f.StringArrayVar(&logs, "log", nil, "look into this `FILE`; may be repeated")
	f.IntVar(&limit, "limit", limit, "tell of the latest `NUMBER` of messages, 1,000 at the most")
	jsonFlag(cmd, &asJSON)
	suggest(cmd, "account", c.completeFlag(meter.AccountNames))
	suggest(cmd, "to", c.completeFlag(meter.DomainNames))
	suggest(cmd, "log", completeFile)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query.Text = strings.Join(args, " ")
		switch {
		case limit < 1 || limit > mostTraced:
			return wrongUsage(cmd, "--limit: %d is not from 1 to %s", limit, grouped(mostTraced))
		case query.Text == "" && query.From == "" && query.To == "" && query.ID == "" && account == "":
			return wrongUsage(cmd, "say what to look for: --from, --to, --id, --account or a TEXT")
		}
		return c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, _ []string) error {
			t := tracer{desk: d, logs: logs, account: account, limit: limit, query: query}
			var err error
			if t.query.Since, err = since.at(d); err == nil {
				t.query.Until, err = until.at(d)
			}
			if err != nil {
				return wrongUsage(cmd, "%w", err)
			}
			found, err := t.run(ctx)
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(found)
			case len(found) == 0:
				d.note("no such message is in the log or in the queue")
			}
			for i, m := range found {
				if i > 0 {
					d.say("")
				}
				d.showTraced(m)
			}
			return nil
		})(cmd, args)
	}
	return cmd
}

// A tracer is one search, from the logs to what is shown.
type tracer struct {
	*desk
	query   trace.Query
	account string
	logs    []string // files that were named
	limit   int
	queued  map[string]mta.Entry
}

func (t *tracer) run(ctx context.Context) ([]*tracedMessage, error) {
	if t.account != "" {
		_, a, err := t.desk.account(ctx, t.account)
		switch {
		case err != nil:
			return nil, err
		case len(a.Domains) == 0:
			return nil, fmt.Errorf("%s has no domain, so no mail is for it", t.account)
		}
		t.query.Domains = a.Domains
	}
	for _, address := range []*string{&t.query.From, &t.query.To} {
		*address = tracedAddress(*address)
	}
	log := t.mta.Log(ctx)
	sources, err := t.sources(ctx, log)
	if err != nil {
		return nil, err
	}
	t.queued = map[string]mta.Entry{}
	inQueue := t.look(ctx, func(e mta.Entry) bool {
		var to []string
		for _, r := range e.Recipients {
			to = append(to, r.Address)
		}
		return e.ID == t.query.ID || t.query.Fits(e.Sender, to)
	})
	search := trace.Search{Log: log, Sources: sources, Query: t.query, Limit: t.limit, Queued: map[string]bool{}, Progress: t.progressOf(sources)}
	for id := range t.queued {
		search.Queued[id] = true
	}
	found, err := search.Run(ctx)
	t.endProgress()
	if err != nil {
		return nil, err
	}
	if inQueue {
		t.lookAgain(ctx, found)
	}
	if found.Skipped > 0 {
		t.note("%s too long to be of %s, and passed over", grouped(found.Skipped)+verb(found.Skipped, " line of the log is", " lines of the log are"), t.mta.Words().Name)
	}
	messages, err := t.tell(ctx, found)
	if err != nil {
		return nil, err
	}
	if over := len(messages) - t.limit; over > 0 {
		messages, found.More = messages[over:], true
	}
	if found.More {
		t.note("these are the latest %d; there are earlier ones: narrow the search, or see --limit", len(messages))
	}
	return messages, nil
}

// tracedAddress writes the domain of an address as logs have it.
func tracedAddress(address string) string {
	at := strings.LastIndexByte(address, '@')
	if domain, err := meter.NormalizeDomain(address[at+1:]); err == nil {
		return address[:at+1] + domain
	}
	return address
}

// sources are where the MTA's log is.
func (t *tracer) sources(ctx context.Context, log mta.Log) ([]trace.Source, error) {
	if len(t.logs) > 0 {
		var sources []trace.Source
		for _, name := range t.logs {
			source, err := trace.File(name)
			if err != nil {
				return nil, err
			}
			sources = append(sources, source)
		}
		trace.Sort(sources)
		return sources, nil
	}
	sources, err := trace.Files(log.Files...)
	if err != nil || len(sources) > 0 {
		return sources, err
	}
	journal, err := trace.Journal(ctx, t.now(), log.Journal)
	if errors.Is(err, trace.ErrNoJournal) {
		return nil, fmt.Errorf("no log of %s was found, neither %s nor a journal; name its files with --log", t.mta.Words().Name, strings.Join(log.Files, ", "))
	}
	return []trace.Source{journal}, err
}

// notes are those of mailbag-popd on messages that were handed over since then, by their names.
func (t *tracer) notes(ctx context.Context, since time.Time) (map[string][]trace.Note, error) {
	sources, err := t.sources(ctx, mta.Log{Journal: "_SYSTEMD_UNIT=mailbag-popd.service"})
	if err != nil {
		t.note("whether mail was fetched from a mailbox cannot be seen: there is no journal; name the log of mailbag-popd with --log")
		return nil, nil
	}
	list, err := trace.Notes(ctx, sources, since, popd.MessageLine)
	named := map[string][]trace.Note{}
	for _, n := range list {
		named[n.Fields["message"]] = append(named[n.Fields["message"]], n)
	}
	return named, err
}

// look adds messages of the queue, and reports whether that could be read. What it has of a queue that could not, it keeps.
func (t *tracer) look(ctx context.Context, wanted func(mta.Entry) bool) bool {
	for e, err := range t.mta.Queue(ctx) {
		if err != nil {
			t.note("the queue of %s cannot be read, so what waits is told by the log alone: %s", t.mta.Words().Name, visible(err.Error()))
			return false
		}
		if wanted(e) && len(t.queued) < mostTraced {
			t.queued[e.ID] = e
		}
	}
	return true
}

// lookAgain adds those that were found in the log by what the queue does not tell.
func (t *tracer) lookAgain(ctx context.Context, found *trace.Found) {
	missing := map[string]bool{}
	for _, m := range found.Messages {
		if _, known := t.queued[m.ID]; !known && m.ID != "" && !m.Over() {
			missing[m.ID] = true
		}
	}
	if len(missing) > 0 {
		t.look(ctx, func(e mta.Entry) bool { return missing[e.ID] })
	}
}

// progressOf shows how much of the logs was read. They are read twice.
func (t *tracer) progressOf(sources []trace.Source) func(int64) {
	var total int64
	for _, s := range sources {
		total += 2 * s.Size
	}
	shown := ""
	return func(read int64) {
		bar := units.RoundSize(read)
		if total > 0 {
			const width = 30
			part := min(float64(read)/float64(total), 1)
			full := int(part * width)
			bar = fmt.Sprintf("%s%s %3.0f %% of %s", strings.Repeat("#", full), strings.Repeat(".", width-full), 100*part, units.RoundSize(total/2))
		}
		if bar != shown {
			shown = bar
			t.showProgress("reading the log: %s", bar)
		}
	}
}
