package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/trace"
	"mailbag/meter"
	"mailbag/popd"
)

// A tracedMessage is what is known of a message, in --json.
type tracedMessage struct {
	QueueID    string                 `json:"queue_id,omitempty"` // empty: refused before it had one
	Instance   string                 `json:"instance,omitempty"` // of the MTA
	MessageID  string                 `json:"message_id,omitempty"`
	Sender     string                 `json:"sender"` // "<>": the null one
	Client     string                 `json:"client,omitempty"`
	Size       int64                  `json:"size,omitempty"` // octets, as the MTA counts
	Came       time.Time              `json:"came"`
	Counted    []meter.CountedMessage `json:"counted"`
	Uncounted  []string               `json:"uncounted,omitempty"`     // accounts of recipients, of which the ledger has no evidence
	Unkept     bool                   `json:"evidence_over,omitempty"` // of its time no evidence is kept any more
	Recipients []*tracedRecipient     `json:"recipients"`
	Events     []tracedEvent          `json:"events"` // of the message, for all recipients
	Truncated  bool                   `json:"truncated,omitempty"`

	last time.Time
}

// A tracedRecipient is one of its recipients.
type tracedRecipient struct {
	Address  string        `json:"address"`
	Original string        `json:"original,omitempty"` // before an alias
	Account  string        `json:"account,omitempty"`  // empty: nobody's here
	Fate     fate          `json:"fate"`
	Indexed  bool          `json:"indexed,omitempty"` // waits for the account's next turn, by the ledger's index
	Events   []tracedEvent `json:"events"`
}

// A fate is what became of a message for one recipient, as far as is known.
type fate string

const (
	isRefused   fate = "refused"
	waits       fate = "waits"
	onHold      fate = "on hold"
	isDelivered fate = "delivered"
	isStored    fate = "stored"  // in a mailbox
	isFetched   fate = "fetched" // from there
	isErased    fate = "deleted" // there, without having been fetched
	isReturned  fate = "returned"
	isDiscarded fate = "discarded"
	isRemoved   fate = "removed" // from the queue, by the operator
	isUnknown   fate = "unknown" // the log does not tell
)

// A tracedEvent is one thing that happened.
type tracedEvent struct {
	At      time.Time      `json:"at"`
	Kind    mta.EventKind  `json:"kind"`
	Text    string         `json:"text,omitempty"` // reply or reason
	Relay   string         `json:"relay,omitempty"`
	Times   int            `json:"times,omitempty"` // that it happened, where more than once
	Last    time.Time      `json:"last,omitzero"`
	Turn    *meter.Turn    `json:"turn,omitempty"`
	Stored  string         `json:"stored,omitempty"` // name of the message in the mailbox
	Session *tracedSession `json:"session,omitempty"`
}

// A tracedSession is the POP3 session in which a message was handed over.
type tracedSession struct {
	Ended   time.Time `json:"ended"`
	Mailbox string    `json:"mailbox,omitempty"` // empty: the catch-all
	Client  string    `json:"client"`
	Fetched bool      `json:"fetched"`
	Deleted bool      `json:"deleted"`
}

// handedOver is what the log of mailbag-popd adds.
const handedOver mta.EventKind = "handed over"

// tell puts together what logs, queue and ledger have of the messages.
func (t *tracer) tell(ctx context.Context, found *trace.Found) ([]*tracedMessage, error) {
	list := []*tracedMessage{}
	seen := map[string]bool{}
	for _, m := range found.Messages {
		list = append(list, tellLogged(m))
		seen[m.ID] = true
	}
	for id, e := range t.queued {
		if !seen[id] && (t.query.Until.IsZero() || e.Arrival.Before(t.query.Until)) {
			list = append(list, &tracedMessage{QueueID: id, Sender: cmp.Or(e.Sender, "<>"), Size: e.Size, Came: e.Arrival, last: e.Arrival})
		}
	}
	slices.SortStableFunc(list, func(a, b *tracedMessage) int {
		return cmp.Or(a.Came.Compare(b.Came), cmp.Compare(a.QueueID, b.QueueID))
	})
	for i, m := range list {
		// The latest of those that had one queue ID is the one in the queue.
		later := slices.ContainsFunc(list[i+1:], func(o *tracedMessage) bool { return o.QueueID == m.QueueID })
		if e, ok := t.queued[m.QueueID]; ok && m.QueueID != "" && !later {
			m.waiting(e)
		}
		m.settle()
	}
	if err := t.own(ctx, list); err != nil {
		return nil, err
	}
	if err := t.count(ctx, list); err != nil {
		return nil, err
	}
	if err := t.index(ctx, list); err != nil {
		return nil, err
	}
	return list, t.deliveries(ctx, list)
}

// tellLogged sorts what the log has of a message by its recipients.
func tellLogged(m *trace.Message) *tracedMessage {
	told := &tracedMessage{QueueID: m.ID, Instance: m.Instance, Came: m.Came(), Truncated: m.Truncated,
		Counted: []meter.CountedMessage{}, Recipients: []*tracedRecipient{}, Events: []tracedEvent{}}
	for _, e := range m.Events {
		told.Sender = cmp.Or(told.Sender, e.Sender)
		told.MessageID = cmp.Or(told.MessageID, e.MessageID)
		told.Client = cmp.Or(told.Client, e.Client)
		told.Size = cmp.Or(told.Size, e.Size)
		told.last = e.Last
		for _, address := range strings.Fields(e.All) {
			told.to(address)
		}
		event := tracedEvent{At: e.At, Kind: e.Kind, Text: e.Text, Relay: e.Relay}
		if e.Times > 1 {
			event.Times, event.Last = e.Times, e.Last
		}
		switch {
		case e.Recipient != "":
			to := told.to(e.Recipient)
			to.Original = cmp.Or(to.Original, e.Original)
			to.Events = append(to.Events, event)
		case e.Kind != mta.Came:
			told.Events = append(told.Events, event)
		}
	}
	return told
}

// to is the recipient of an address.
func (m *tracedMessage) to(address string) *tracedRecipient {
	for _, r := range m.Recipients {
		if strings.EqualFold(r.Address, address) {
			return r
		}
	}
	r := &tracedRecipient{Address: address, Events: []tracedEvent{}}
	m.Recipients = append(m.Recipients, r)
	return r
}

// waiting adds what the queue has.
func (m *tracedMessage) waiting(e mta.Entry) {
	m.Counted, m.Events = append([]meter.CountedMessage{}, m.Counted...), append([]tracedEvent{}, m.Events...)
	for _, r := range e.Recipients {
		to := m.to(r.Address)
		to.Fate = waits
		if e.OnHold {
			to.Fate = onHold
		}
		if len(to.Events) == 0 && r.Reason != "" {
			to.Events = append(to.Events, tracedEvent{At: e.Arrival, Kind: mta.Deferred, Text: r.Reason})
		}
	}
}

// settle finds the fates of recipients that are not in the queue.
func (m *tracedMessage) settle() {
	var end, begun fate // of all that were not delivered
	for _, e := range m.Events {
		switch e.Kind {
		case mta.Queued:
			begun = waits
		case mta.Refused:
			end = isRefused
		case mta.Discarded:
			end = isDiscarded
		case mta.Expired:
			end = isReturned
		case mta.Deleted:
			end = isRemoved
		}
	}
	for _, r := range m.Recipients {
		if r.Fate != "" {
			continue
		}
		r.Fate = cmp.Or(end, begun, isUnknown)
		for _, e := range r.Events {
			switch e.Kind {
			case mta.Delivered:
				r.Fate = isDelivered
			case mta.Refused:
				r.Fate = isRefused
			case mta.Failed:
				r.Fate = isReturned
			case mta.Discarded:
				r.Fate = isDiscarded
			case mta.Deferred:
				if r.Fate != isDelivered {
					r.Fate = cmp.Or(end, waits)
				}
			}
		}
	}
}

// own finds whose the recipients are.
func (t *tracer) own(ctx context.Context, list []*tracedMessage) error {
	var domains []string
	each := func(look func(r *tracedRecipient, domain string)) {
		for _, m := range list {
			for _, r := range m.Recipients {
				address := cmp.Or(r.Original, r.Address)
				if domain, err := meter.NormalizeDomain(address[strings.LastIndexByte(address, '@')+1:]); err == nil {
					look(r, domain)
				}
			}
		}
	}
	each(func(_ *tracedRecipient, domain string) { domains = append(domains, domain) })
	slices.Sort(domains)
	owners, err := t.ledger.Owners(ctx, slices.Compact(domains))
	each(func(r *tracedRecipient, domain string) { r.Account = owners[domain] })
	return err
}

// aroundArrival is how far the time of counting may be from what the log has of a message: what could not be counted when it
// came is counted when it is tried.
const aroundArrival = time.Hour

// count finds for whom the messages were counted.
func (t *tracer) count(ctx context.Context, list []*tracedMessage) error {
	var sought []meter.Sought
	for _, m := range list {
		if m.QueueID != "" {
			sought = append(sought, meter.Sought{QueueID: m.QueueID, Since: m.Came.Add(-aroundArrival), Until: m.last.Add(aroundArrival)})
		}
	}
	counted, err := t.ledger.Counted(ctx, sought)
	if err != nil {
		return err
	}
	for _, m := range list {
		m.Counted = []meter.CountedMessage{}
		for _, c := range counted {
			if c.QueueID == m.QueueID && !c.At.Before(m.Came.Add(-aroundArrival)) && !c.At.After(m.last.Add(aroundArrival)) {
				m.Counted = append(m.Counted, c)
			}
		}
		m.Unkept = m.QueueID != "" && m.Came.Before(t.now().Add(-t.settings.Retention.Messages))
		if m.QueueID == "" || m.Unkept {
			continue
		}
		for _, r := range m.Recipients {
			known := slices.ContainsFunc(m.Counted, func(c meter.CountedMessage) bool { return c.Account == r.Account })
			if r.Account != "" && r.Fate != isRefused && !known && !slices.Contains(m.Uncounted, r.Account) {
				m.Uncounted = append(m.Uncounted, r.Account)
			}
		}
		slices.SortFunc(m.Counted, func(a, b meter.CountedMessage) int { return cmp.Compare(a.Account, b.Account) })
		slices.Sort(m.Uncounted)
	}
	return nil
}

// index finds those that wait for turns.
func (t *tracer) index(ctx context.Context, list []*tracedMessage) error {
	var ids []string
	for _, m := range list {
		for _, r := range m.Recipients {
			if r.Fate == waits && r.Account != "" {
				ids = append(ids, m.QueueID)
			}
		}
	}
	indexed, err := t.ledger.WaitingFor(ctx, ids)
	for _, m := range list {
		for _, r := range m.Recipients {
			r.Indexed = r.Fate == waits && slices.Contains(indexed[m.QueueID], r.Account)
		}
	}
	return err
}

// deliveries finds the turns in which messages were delivered, and the sessions in which they were fetched.
func (t *tracer) deliveries(ctx context.Context, list []*tracedMessage) error {
	var earliest time.Time
	for _, m := range list {
		for _, r := range m.Recipients {
			for i := range r.Events {
				e := &r.Events[i]
				if e.Kind != mta.Delivered || r.Account == "" {
					continue
				}
				if _, name, ok := strings.Cut(e.Text, popd.StoredAs); ok {
					e.Stored, _, _ = strings.Cut(name, " ")
					if earliest.IsZero() || e.At.Before(earliest) {
						earliest = e.At
					}
					r.Fate = isStored
					continue
				}
				turn, err := t.ledger.TurnAt(ctx, r.Account, e.At)
				if err != nil {
					return err
				}
				e.Turn = turn
			}
		}
	}
	if earliest.IsZero() {
		return nil
	}
	notes, err := t.notes(ctx, earliest.Add(-time.Minute))
	if err != nil {
		return err
	}
	if len(notes) == 0 && len(t.logs) > 0 {
		t.note("the files of --log have no lines of mailbag-popd, so it cannot be seen whether mail was fetched from a mailbox")
	}
	for _, m := range list {
		for _, r := range m.Recipients {
			r.sessions(notes)
		}
	}
	return nil
}

// sessions adds those in which the message was fetched from its mailbox, or deleted there.
func (r *tracedRecipient) sessions(notes map[string][]trace.Note) {
	for _, e := range slices.Clone(r.Events) {
		for _, n := range notes[e.Stored] {
			if n.Fields["account"] != r.Account || e.Stored == "" {
				continue
			}
			s := &tracedSession{Ended: n.At, Mailbox: meter.Written(n.Fields["mailbox"]), Client: n.Fields["client"],
				Fetched: n.Fields["fetched"] == "true", Deleted: n.Fields["deleted"] == "true"}
			r.Events = append(r.Events, tracedEvent{At: n.At, Kind: handedOver, Session: s})
			switch {
			case s.Fetched:
				r.Fate = isFetched
			case r.Fate == isStored && s.Deleted:
				r.Fate = isErased
			}
		}
	}
}
