package main

import (
	"cmp"
	"fmt"
	"strings"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/units"
)

// showTraced tells people of a message, a line for each thing that happened, in the order of time.
func (d *desk) showTraced(m *tracedMessage) {
	about := []string{cmp.Or(m.QueueID, "refused"), " from", cmp.Or(m.Sender, "(the log does not tell)")}
	if m.Size > 0 {
		about[len(about)-1] += ","
		about = append(about, unbroken(units.RoundSize(m.Size)))
	}
	if m.MessageID != "" {
		about[len(about)-1] += ","
		about = append(about, m.MessageID)
	}
	d.line("", strings.Join(about, " "))
	d.line("  ", d.stamp(m.Came)+"  "+m.arrival())
	for _, r := range m.Recipients {
		to := "to " + r.Address
		if r.Original != "" {
			to += ", for " + r.Original
		}
		if r.Account != "" {
			to += " (" + r.Account + ")"
		}
		to += ": " + string(r.Fate)
		if r.Indexed {
			to += " for the account's next turn"
		}
		d.line("  ", to)
		for _, e := range r.Events {
			d.line("    ", d.stamp(e.At)+"  "+d.happened(m, r, e))
		}
	}
	for _, e := range m.Events {
		d.line("  ", d.stamp(e.At)+"  "+d.happened(m, nil, e))
	}
	if m.Truncated {
		d.line("  ", "The log has more of it than is told here.")
	}
}

// line is one of the tale, with what does not fit below it.
func (d *desk) line(indent, text string) {
	d.say("%s", strings.TrimSuffix(strings.ReplaceAll(wrapped(indent, indent+"    ", visible(text)), noBreak, " "), "\n"))
}

// noBreak is a space at which no line of the tale ends.
const noBreak = "\u00a0"

func unbroken(s string) string { return strings.ReplaceAll(s, " ", noBreak) }

// arrival says from where it came and for whom it was counted.
func (m *tracedMessage) arrival() string {
	text := "came"
	if m.QueueID == "" {
		text = "tried"
	}
	if m.Client != "" {
		text += " from " + m.Client
	}
	if m.QueueID == "" {
		return text
	}
	var accounts []string
	for _, c := range m.Counted {
		accounts = append(accounts, c.Account)
	}
	switch {
	case len(accounts) > 0:
		text += "; counted for " + strings.Join(accounts, ", ")
	case m.Unkept:
		text += "; evidence of that time is not kept any more"
	case len(m.Uncounted) == 0:
		text += "; counted for nobody, as no recipient is an account's"
	}
	if len(m.Uncounted) > 0 {
		text += "; not counted for " + strings.Join(m.Uncounted, ", ") + ": the ledger has no evidence of it under this queue ID"
	}
	return text
}

// happened is an event in words.
func (d *desk) happened(m *tracedMessage, r *tracedRecipient, e tracedEvent) string {
	text := map[mta.EventKind]string{
		mta.Refused: "refused", mta.Queued: "waits for a turn", mta.Deferred: "put off", mta.Failed: "given up", mta.Discarded: "discarded",
		mta.Held: "put on hold", mta.Unheld: "taken off hold", mta.Expired: "given up, for all that it waited for",
		mta.Notified: "the sender was told", mta.Deleted: "deleted from the queue by the operator", mta.Gone: "done: it left the queue",
	}[e.Kind]
	said := e.Text
	switch {
	case e.Session != nil:
		return sessionWords(e.Session)
	case e.Kind == mta.Failed && m.Sender != "<>":
		text = "given up and returned to the sender"
	case e.Kind == mta.Notified:
		text, said = "the sender was told, by the message "+e.Text, ""
	case e.Kind != mta.Delivered:
	case e.Stored != "":
		text, said = "put into the mailbox as "+e.Stored, ""
	case e.Turn != nil:
		text = fmt.Sprintf("delivered in the %s turn that began %s", e.Turn.Kind, unbroken(d.stamp(e.Turn.Began)))
		if e.Turn.Client != "" {
			text += ", asked for by " + e.Turn.Client
		}
		if e.Turn.Peer != "" && e.Turn.Peer != e.Turn.Client {
			text += ", to " + e.Turn.Peer
		}
	case e.Relay != "":
		text = "delivered to " + e.Relay
	default:
		text = "delivered"
	}
	if said != "" {
		text += ": " + said
	}
	if e.Times > 1 {
		text += fmt.Sprintf(" (%s"+noBreak+"times, last"+noBreak+"%s)", grouped(int64(e.Times)), unbroken(d.stamp(e.Last)))
	}
	return text
}

func sessionWords(s *tracedSession) string {
	did := "fetched"
	switch {
	case s.Fetched && s.Deleted:
		did = "fetched and deleted"
	case s.Deleted:
		did = "deleted without being fetched"
	}
	return fmt.Sprintf("%s in a POP3 session from %s of %s", did, s.Client, cmp.Or(s.Mailbox, "the catch-all"))
}
