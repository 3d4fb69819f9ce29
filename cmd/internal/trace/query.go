package trace

import (
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// A Query is what a message has to fit, in all that is not empty. Case does not matter, as far as it is ASCII's.
type Query struct {
	From    string   // address, domain, or "<>"
	To      string   // address or domain of a recipient
	ID      string   // queue ID, or the Message-ID with its @
	Domains []string // of an account that has a recipient there
	Text    string   // in any of its lines

	Since, Until time.Time // when one of its lines was written; zero: at any time
}

// bits are the criteria that a message fits, by their place in the list.
type bits uint8

func all(criteria []criterion) bits { return 1<<len(criteria) - 1 }

// A criterion is one thing that a message has to fit. A line that shows that it does has one of the needles in it, in lower
// case.
type criterion struct {
	needles [][]byte
	fits    func(mta.Event) bool // nil: a line with a needle shows it as it is
}

// manyNeedles is how many domains are looked for one by one. Of more, each address is looked up.
const manyNeedles = 4

func (q Query) criteria() []criterion {
	var list []criterion
	if q.Text != "" {
		list = append(list, criterion{needles("", q.Text), nil})
	}
	if q.From != "" {
		list = append(list, criterion{needles("", addressNeedle(q.From)), func(e mta.Event) bool { return sameAddress(q.From, e.Sender) }})
	}
	if q.To != "" {
		list = append(list, criterion{needles("", addressNeedle(q.To)), func(e mta.Event) bool {
			return anyRecipient(e, func(address string) bool { return sameAddress(q.To, address) })
		}})
	}
	if len(q.Domains) > 0 {
		ours := map[string]bool{}
		for _, d := range q.Domains {
			ours[lowerCase(d)] = true
		}
		c := criterion{needles("@", q.Domains...), func(e mta.Event) bool {
			return anyRecipient(e, func(address string) bool { return ours[domainOf(address)] })
		}}
		if len(q.Domains) > manyNeedles {
			c.needles = needles("", "@")
		}
		list = append(list, c)
	}
	if q.ID != "" && q.queueID() == "" {
		id := strings.Trim(q.ID, "<>")
		list = append(list, criterion{needles("", id), func(e mta.Event) bool { return lowerCase(strings.Trim(e.MessageID, "<>")) == lowerCase(id) }})
	}
	return list
}

// anyRecipient asks about each that an event names.
func anyRecipient(e mta.Event, fits func(string) bool) bool {
	return fits(e.Recipient) || fits(e.Original) || slices.ContainsFunc(strings.Fields(e.All), fits)
}

// queueID is the queue ID that is asked for, if any.
func (q Query) queueID() string {
	if strings.Contains(q.ID, "@") {
		return ""
	}
	return q.ID
}

// Fits reports whether sender and recipient are those that are asked for, of a message in the queue. What a
// queue cannot tell, it does not fit.
func (q Query) Fits(sender string, recipients []string) bool {
	if q.Text != "" || q.ID != "" {
		return false
	}
	if sender == "" {
		sender = "<>"
	}
	for _, c := range q.criteria() {
		any := c.fits(mta.Event{Sender: sender})
		for _, r := range recipients {
			any = any || c.fits(mta.Event{Recipient: r})
		}
		if !any {
			return false
		}
	}
	return true
}

// within reports whether something of the message is of the time that is asked for.
func (q Query) within(m *Message) bool {
	for _, e := range m.Events {
		if q.covers(e.At) || q.covers(e.Last) {
			return true
		}
	}
	return false
}

func (q Query) covers(t time.Time) bool {
	return !t.Before(q.Since) && (q.Until.IsZero() || t.Before(q.Until))
}

func needles(before string, texts ...string) [][]byte {
	var list [][]byte
	for _, t := range texts {
		list = append(list, []byte(lowerCase(before+t)))
	}
	return list
}

// addressNeedle is what a line with an address has in it.
func addressNeedle(wanted string) string {
	if wanted == "<>" || strings.Contains(wanted, "@") {
		return wanted
	}
	return "@" + wanted
}

// sameAddress reports whether an address is the wanted one, or in the wanted domain.
func sameAddress(wanted, address string) bool {
	if domain, ok := strings.CutPrefix(addressNeedle(wanted), "@"); ok {
		return domainOf(address) == lowerCase(domain)
	}
	return lowerCase(wanted) == lowerCase(address)
}

func domainOf(address string) string {
	return lowerCase(address[strings.LastIndexByte(address, '@')+1:])
}
