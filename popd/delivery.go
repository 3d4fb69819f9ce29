package popd

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"

	"mailbag/meter"
	"mailbag/popd/maildir"
)

// A delivery is the LMTP session (RFC 2033) of one connection of the MTA's.
type delivery struct {
	server *Server
	conn   *lmtpConn
	from   string
	size   int64 // as MAIL declared it; 0: it did not
	to     []*recipient
}

var _ smtp.LMTPSession = (*delivery)(nil)

// delivered is the reply for a recipient whose message is on the disk. The MTA logs it, and by the name the message is found
// again in the log of the session that fetches it. go-smtp's own word would be "queued".
func delivered(name string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 1, 5}, Message: StoredAs + name}
}

// StoredAs is what stands before a message's name in the reply to its delivery.
const StoredAs = "Stored as "

// Mail begins a message.
func (d *delivery) Mail(from string, opts *smtp.MailOptions) error {
	if from != "" {
		address, err := readAddress(from)
		if err != nil {
			return badAddress
		}
		from = address.String()
	}
	d.from, d.size = from, opts.Size
	d.conn.busy.Store(true)
	return nil
}

// Rcpt takes a recipient whose account has room for the message.
func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error {
	r, refusal := d.server.route(d.server.mta.Context(), to)
	if refusal == nil {
		refusal = d.server.room(r.account, d.size)
	}
	if refusal != nil {
		d.server.metrics.refused(refusal.Code)
		return refusal
	}
	d.to = append(d.to, r)
	return nil
}

// Reset ends a message, with or without a result.
func (d *delivery) Reset() {
	d.from, d.size, d.to = "", 0, nil
	d.conn.rest()
}

// Logout is the connection's end.
func (d *delivery) Logout() error { return nil }

// Data is not for LMTP.
func (d *delivery) Data(io.Reader) error { return errors.ErrUnsupported }

// A letter is one file that a message becomes.
type letter struct {
	to    []*recipient // of one account, and one mailbox
	draft *maildir.Draft
}

// LMTPData stores a message and answers for each recipient once its copy is on the disk. The first copy takes
// what comes; the others are made of it.
func (d *delivery) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	begun := time.Now()
	d.conn.content.Store(true)
	defer func() {
		d.server.metrics.stored.Observe(time.Since(begun).Seconds())
		// Of a message that is not wanted the rest is still content, and go-smtp answers a chunk that nobody reads by itself.
		io.Copy(io.Discard, r)
		d.conn.content.Store(false)
	}()
	answer := func(c *letter, err error) {
		for _, to := range c.to {
			status.SetStatus(to.given, d.server.report(to, c, err))
		}
	}
	copies := d.copies()
	for len(copies) > 0 {
		err := d.begin(copies[0])
		if err == nil {
			break
		}
		answer(copies[0], err)
		copies = copies[1:]
	}
	if len(copies) == 0 {
		return nil
	}
	first := copies[0]
	defer first.draft.Discard()
	first.draft.Shared()
	buffer := contents.Get().(*[]byte)
	_, err := io.CopyBuffer(first.draft, r, *buffer)
	contents.Put(buffer)
	if err == nil && d.conn.lost.Load() {
		err = io.ErrUnexpectedEOF // to go-smtp a chunk (RFC 3030) that is cut off is one that has ended
	}
	if err != nil {
		for _, c := range copies {
			answer(c, err)
		}
		return nil
	}
	// They are made one after another, in the order of the recipients, and brought to the disk at the same time.
	var others sync.WaitGroup
	at := make(chan struct{}, copiesAtOnce)
	for _, c := range copies[1:] {
		err := d.begin(c)
		if err == nil {
			err = c.draft.Append(first.draft)
		}
		if err != nil {
			c.draft.Discard()
			answer(c, err)
			continue
		}
		at <- struct{}{}
		others.Go(func() {
			defer func() { <-at }()
			defer c.draft.Discard()
			answer(c, d.server.finish(c))
		})
	}
	others.Wait()
	answer(first, d.server.finish(first))
	return nil
}

// contents are the buffers through which messages pass.
var contents = sync.Pool{New: func() any {
	b := make([]byte, 32<<10)
	return &b
}}

// copiesAtOnce is how many copies of one message are written at a time.
const copiesAtOnce = 16

// copies says which files the message becomes: one for each recipient, or, where the account wants a single
// copy, one for each of its mailboxes.
func (d *delivery) copies() []*letter {
	type place struct {
		account int64
		maildir string
	}
	var all []*letter
	single := map[place]*letter{}
	for _, to := range d.to {
		at := place{to.account.ID, to.maildir}
		if c := single[at]; c != nil {
			c.to = append(c.to, to)
			continue
		}
		c := &letter{to: []*recipient{to}}
		if to.account.Copies == meter.SingleCopy {
			single[at] = c
		}
		all = append(all, c)
	}
	return all
}

// begin opens a copy's draft and writes the envelope into it. A Maildir is made when its first message comes.
func (d *delivery) begin(c *letter) error {
	to := c.to[0]
	box := d.server.cfg.Store.Maildir(to.account.Name, to.maildir)
	draft, err := box.Draft(d.server.names)
	if errors.Is(err, fs.ErrNotExist) {
		if err = box.Create(); err == nil {
			draft, err = box.Draft(d.server.names)
		}
	}
	if err != nil {
		return err
	}
	var addresses []meter.Address
	for _, to := range c.to {
		addresses = append(addresses, to.address)
	}
	if _, err := draft.Write(envelope(d.from, addresses)); err != nil {
		draft.Discard()
		return err
	}
	c.draft = draft
	return nil
}

// finish delivers a copy within its account's quota.
func (s *Server) finish(c *letter) error {
	settle, err := s.cfg.Store.claim(c.to[0].account, c.draft.Stored())
	if err != nil {
		return err
	}
	err = c.draft.Deliver(&s.syncer)
	settle(err == nil)
	return err
}

// report is the status of a recipient.
func (s *Server) report(to *recipient, c *letter, err error) *smtp.SMTPError {
	if err == nil {
		s.metrics.delivered(c.draft.Stored())
		s.log.Debug("delivered", "account", to.account.Name, "mailbox", to.mailbox, "size", c.draft.Stored())
		return delivered(c.draft.Name())
	}
	refusal := full
	if !errors.Is(err, errOverQuota) {
		refusal = s.storageError(err)
	}
	s.metrics.refused(refusal.Code)
	return refusal
}

var (
	diskFull = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "There is no space left for mail"}
	failed   = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "The message could not be stored"}
)

// storageError is the reply to what the disk, or the connection, failed with. All of it is for now.
func (s *Server) storageError(err error) *smtp.SMTPError {
	var said *smtp.SMTPError
	if errors.As(err, &said) {
		return said // by go-smtp, of the content
	}
	reply := failed
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		reply = diskFull
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF) {
		return reply // the client went away, and nobody reads this
	}
	if n, ok := s.trouble.Allow(); ok {
		s.log.Error("mail could not be stored; it stays in the MTA's queue", "error", err, "more", n)
	}
	return reply
}
