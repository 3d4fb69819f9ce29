package policy

import (
	"context"
	"slices"

	"mailbag/meter"
)

// endOfMessage records the message for the accounts among its recipients, and lets it pass once that
// is durable.
func (p *Policy) endOfMessage(ctx context.Context, r *request) decision {
	accounts, total, known := p.notes.of(r.instance)
	if known {
		return p.recordNoted(ctx, r, accounts, total)
	}
	return p.recordUnknown(ctx, r)
}

// recordNoted counts a message whose recipients were seen. Some of them may have been refused since: by
// the customer's server, where Postfix asks it, or by a restriction behind ours. recipient_count
// tells how many were accepted, and recipient which one, if it is one alone (with more, Postfix
// leaves the attribute empty).
func (p *Policy) recordNoted(ctx context.Context, r *request, accounts []noted, total int64) decision {
	if p.notes.sole(r.instance, r.recipient) {
		// Whose it was at RCPT counts, whatever an operator changed since.
	} else if sole, is := p.soleRecipient(r); is {
		if sole == nil {
			p.notes.done(r.instance)
			return dunno
		}
		mine := accounts[:0]
		for _, n := range accounts {
			if n.account == sole.ID {
				mine = append(mine, n)
			}
		}
		if len(mine) == 0 {
			p.reportUnattributed(r, sole)
		}
		accounts = mine
	} else if r.recipients > 0 && r.recipients < total {
		accounts = p.withoutRefused(r, accounts, total)
	}
	if len(accounts) == 0 {
		p.notes.done(r.instance)
		return dunno
	}
	ids := make([]int64, len(accounts))
	var domains []string
	ours := int64(0)
	for i, n := range accounts {
		ids[i] = n.account
		domains = append(domains, n.domains...)
		ours += n.count
	}
	d := p.record(ctx, r, p.accountsByID(ids), domains)
	if d == limitRejected && (len(accounts) > 1 || ours < total) {
		d = limitDeferred // for the others it is good: sent again, each recipient has an answer of its own
	}
	if d == dunno {
		p.notes.done(r.instance)
	}
	return d
}

// recordUnknown treats a message without notes. If it may have lost them, because this process began
// after it or because there were too many, it is counted or sent back, as far as one can tell for
// whom it is. Else no RCPT of it was ever asked about: it is a content filter's re-injection, which
// was counted when it came in, or an earlier permit kept our restriction from being asked. Such a
// message never counts.
func (p *Policy) recordUnknown(ctx context.Context, r *request) decision {
	sole, is := p.soleRecipient(r)
	if is && sole == nil {
		return dunno
	}
	if !p.notes.mayHaveLost(string(r.instance)) {
		if is {
			// Postfix asks again when the connection broke before it had the answer.
			if done, err := p.cfg.Recorder.Recorded(ctx, string(r.instance)); err != nil || !done {
				p.reportUnattributed(r, sole)
			}
		}
		return dunno
	}
	done, err := p.cfg.Recorder.Recorded(ctx, string(r.instance))
	switch {
	case err != nil:
		p.reportUnrecorded(string(r.queueID), err)
		return unavailable
	case done:
		return dunno
	case is:
		return p.record(ctx, r, []*meter.Account{sole}, nil)
	}
	return unavailable
}

// soleRecipient returns the account of a message's only recipient, nil when it is not ours. It is
// false when there are more, or nobody knows.
func (p *Policy) soleRecipient(r *request) (*meter.Account, bool) {
	directory := p.cfg.Accounts.Directory()
	if r.recipients != 1 || len(r.recipient) == 0 || directory == nil {
		return nil, false
	}
	return readRecipient(directory, string(r.recipient)).account, true
}

// accountsByID returns the accounts as they are now. One that was deleted since RCPT is billable for
// what it took before.
func (p *Policy) accountsByID(ids []int64) []*meter.Account {
	directory := p.cfg.Accounts.Directory()
	accounts := make([]*meter.Account, len(ids))
	for i, id := range ids {
		if accounts[i] = directory.AccountByID(id); accounts[i] == nil {
			accounts[i] = &meter.Account{ID: id}
		}
	}
	return accounts
}

// record lets the message in and makes it durable. One that was recorded before, because Postfix asks
// again, passes whatever the limits say now: it may be the one that crossed them.
func (p *Policy) record(ctx context.Context, r *request, accounts []*meter.Account, domains []string) decision {
	d, settle := p.admit(ctx, accounts, r.octets)
	if d.kind == limited {
		if done, err := p.cfg.Recorder.Recorded(ctx, string(r.instance)); err == nil && done {
			return dunno
		}
	}
	if d != dunno {
		return d
	}
	defer settle()
	err := p.cfg.Recorder.Record(ctx, meter.Message{
		Instance: string(r.instance),
		QueueID:  string(r.queueID),
		Size:     r.octets,
		Client:   string(r.clientAddress),
		At:       p.now(),
		Accounts: accounts,
		Domains:  domains,
	})
	if err != nil {
		p.reportUnrecorded(string(r.queueID), err)
		return unavailable
	}
	return dunno
}

func (p *Policy) reportUnrecorded(queueID string, err error) {
	if n, ok := p.unrecorded.Allow(); ok {
		p.log.Error("a message cannot be recorded and is deferred", "queue_id", queueID, "error", err, "more", n)
	}
}

func (p *Policy) reportUnattributed(r *request, a *meter.Account) {
	p.metrics.unattributed.Inc()
	if n, ok := p.unattributed.Allow(); ok {
		p.log.Warn("a message was not counted: its recipient was accepted without asking mailbag, or it was sent in a second time by a content filter; mailbag postfix check tells which",
			"account", a.Name, "queue_id", string(r.queueID), "instance", string(r.instance), "more", n)
	}
}

// withoutRefused returns the accounts of which a recipient was accepted, when some were refused after we
// let them pass. That is what verification does, for one account in a message at the most. What it
// does not explain was refused by a restriction that somebody put behind ours: then the accounts of
// which every recipient may be among the refused are counted nonetheless, and it is logged.
func (p *Policy) withoutRefused(r *request, accounts []noted, total int64) []noted {
	refused := total - r.recipients
	if i := slices.IndexFunc(accounts, func(n noted) bool { return n.verified }); i >= 0 {
		count := accounts[i].count
		if count <= refused {
			accounts = slices.Delete(accounts, i, i+1)
		}
		refused -= min(count, refused)
	}
	if refused > 0 && slices.ContainsFunc(accounts, func(n noted) bool { return n.count <= refused }) {
		if n, ok := p.uncertain.Allow(); ok {
			p.log.Warn("a restriction after mailbag's refused recipients of a message that was counted for all accounts that it named; mailbag postfix check tells which",
				"queue_id", string(r.queueID), "noted", total, "accepted", r.recipients, "more", n)
		}
	}
	return accounts
}
