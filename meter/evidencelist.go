package meter

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"
)

// Evidence yields the messages that were counted for the account in the month, oldest first, as far
// as they are kept, from the ledger and from the files of days that left it. Accounts is not set. What is counted or pruned meanwhile
// may be among them or not. An [ErrEvidence] is about one file, and does not end it.
func (l *Ledger) Evidence(ctx context.Context, account int64, month Month) iter.Seq2[Message, error] {
	first, last := month.span()
	return func(yield func(Message, error) bool) {
		files := evidenceFiles{ledger: l, account: account}
		defer files.close()
		for after := (counted{}); ; {
			page, archives, err := l.countedAfter(ctx, account, month, after)
			if err != nil {
				yield(Message{}, err)
				return
			}
			if !files.open(archives, after.Message, yield) {
				return
			}
			for _, m := range page {
				if !files.upto(&m.Message, yield) || m.day >= first && m.day <= last && !yield(m.Message, nil) {
					return
				}
				after = m
			}
			if len(page) == 0 {
				files.upto(nil, yield)
				return
			}
		}
	}
}

// counted is a message with the day that it was counted on.
type counted struct {
	Message
	day string
}

// anyZone is how much later than in UTC a day may end, whatever the time zone was then.
const anyZone = 26 * time.Hour

// countedAfter returns the next page of the account's messages in the ledger, among them all that can be of the month, and the files of
// the month at the same moment: what left the ledger before it is in one of them. The day decides, but a page is found by the time, so
// that to read it takes no longer however many messages are of other months.
func (l *Ledger) countedAfter(ctx context.Context, account int64, month Month, after counted) (list []counted, files []archive, err error) {
	// What came later is of a later month. What came earlier may be of this one: it is where its own was closed (see evidence).
	to := month.Next().Start(time.UTC).Add(anyZone).UnixMilli()
	first, last := month.span()
	err = l.read(ctx, current, query{statement{`
		SELECT at, instance, queue_id, size, client, day FROM message
		WHERE account = ? AND (at, instance) > (?, ?) AND at <= ? ORDER BY at, instance LIMIT ?`,
		[]any{account, after.At.UnixMilli(), after.Instance, to, page}}, func(r scanner) error {
		var m counted
		var at int64
		err := r.Scan(&at, &m.Instance, &m.QueueID, &m.Size, &m.Client, &m.day)
		m.At = moment(at)
		list = append(list, m)
		return err
	}}, archivesInto(&files, first, last))
	return list, files, err
}

// evidenceFiles are the rows of an account in files, each in the order of time.
type evidenceFiles struct {
	ledger  *Ledger
	account int64
	known   []archive
	heads   []*evidenceHead // of those that have more
}

// evidenceHead is the next row of a file.
type evidenceHead struct {
	Message
	next func() (Message, error, bool)
	stop func()
}

func compareMessages(a, b Message) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Instance, b.Instance))
}

// open adds the files that are not known yet, from the message after one on. Its result is that of yield, and so is that of upto.
func (f *evidenceFiles) open(archives []archive, after Message, yield func(Message, error) bool) bool {
	for _, a := range archives {
		if slices.ContainsFunc(f.known, func(k archive) bool { return k.day == a.day && k.host == a.host }) {
			continue
		}
		f.known = append(f.known, a)
		h := &evidenceHead{}
		h.next, h.stop = iter.Pull2(f.ledger.ofAccount(a, f.account))
		f.heads = append(f.heads, h)
		for more := true; more; {
			if !f.advance(h, yield) {
				return false
			}
			more = slices.Contains(f.heads, h) && compareMessages(h.Message, after) <= 0
		}
	}
	return true
}

// upto yields what comes before a message of the ledger, or all that is left. The message itself is in a file, too, as long as the
// ledger is not cleared of what that has.
func (f *evidenceFiles) upto(m *Message, yield func(Message, error) bool) bool {
	for len(f.heads) > 0 {
		first := slices.MinFunc(f.heads, func(a, b *evidenceHead) int { return compareMessages(a.Message, b.Message) })
		if m != nil && compareMessages(first.Message, *m) > 0 {
			break
		}
		twice := m != nil && compareMessages(first.Message, *m) == 0
		if !twice && !yield(first.Message, nil) || !f.advance(first, yield) {
			return false
		}
	}
	return true
}

// advance reads on in a file, and lets it go at its end.
func (f *evidenceFiles) advance(h *evidenceHead, yield func(Message, error) bool) bool {
	m, err, more := h.next()
	h.Message = m
	if more && err == nil {
		return true
	}
	h.stop()
	f.heads = slices.DeleteFunc(f.heads, func(other *evidenceHead) bool { return other == h })
	return err == nil || yield(Message{}, err)
}

func (f *evidenceFiles) close() {
	for _, h := range f.heads {
		h.stop()
	}
}

// ofAccount yields an account's rows of a file. After the last one it is made sure that the file is as it was written.
func (l *Ledger) ofAccount(a archive, account int64) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		read, open := a, true
		err := l.readEvidence(&read, func(r evidenceRow) error {
			if r.account == account {
				open = yield(r.message(), nil)
			}
			if r.account > account || !open {
				return errEnough
			}
			return nil
		})
		if !open {
			return
		}
		if errors.Is(err, errEnough) || err == nil && read != a {
			err = l.verify(a)
		}
		if err != nil {
			yield(Message{}, l.lackingEvidence(a, err))
		}
	}
}

func (r evidenceRow) message() Message {
	return Message{Instance: r.instance, QueueID: r.queueID, Size: r.size, Client: r.client, At: moment(r.at)}
}
