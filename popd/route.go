package popd

import (
	"context"
	"errors"

	"github.com/emersion/go-smtp"

	"mailbag/meter"
)

// A recipient is one that was accepted.
type recipient struct {
	given   string // as the client wrote it, for its status
	address meter.Address
	account *meter.Account
	mailbox string // key; empty: the catch-all
	maildir string // of the mailbox
}

// What RCPT is answered where it is not accepted.
var (
	badAddress = &smtp.SMTPError{Code: 553, EnhancedCode: smtp.EnhancedCode{5, 1, 3}, Message: "The address has characters that no mailbox has"}
	noMailbox  = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "There is no such mailbox"}
	notHere    = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 5}, Message: "The domain is not that of an account whose mail is stored here"}
	suspended  = &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "The account is suspended"}
	noLedger   = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "The ledger cannot be read, so nobody knows whose address it is"}
	full       = &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "The mailbox is full"}
)

// route finds out whose an address is, by the ledger itself: a snapshot may be older than a change of the address's owner, and
// the former one would be given mail of the next. Only while it cannot be read, which is while nobody changes it, the latest
// snapshot serves. A domain that is nobody's is refused for now alone: it is for the MTA's tables to know, and mail is not to
// be lost over a mistake in them.
func (s *Server) route(ctx context.Context, given string) (*recipient, *smtp.SMTPError) {
	address, err := readAddress(given)
	if err != nil {
		return nil, badAddress
	}
	domain, err := meter.NormalizeDomain(address.Domain)
	if err != nil {
		return nil, badAddress
	}
	address.Domain = domain
	to := &recipient{given: given, address: address}
	d, unread := s.cfg.Accounts.Fresh(ctx)
	if unread != nil {
		d = s.cfg.Accounts.Directory()
	}
	if d == nil {
		return nil, noLedger
	}
	switch refusal := to.find(d); {
	case refusal == nil:
		return to, nil
	case unread != nil:
		return nil, noLedger
	default:
		return nil, refusal
	}
}

// find looks an address up in one snapshot.
func (r *recipient) find(d *meter.Directory) *smtp.SMTPError {
	r.account = d.Domain(r.address.Domain)
	switch {
	case r.account == nil || r.account.Mode != meter.POP3:
		return notHere
	case r.account.Suspended:
		return suspended
	}
	r.mailbox = d.Delivery(r.account, r.address)
	if r.mailbox == "" && !r.account.CatchAll {
		return noMailbox
	}
	r.maildir = d.Maildir(r.mailbox)
	return nil
}

// room refuses a recipient whose account cannot store a message of so many octets (0: of any size).
func (s *Server) room(a *meter.Account, octets int64) *smtp.SMTPError {
	settle, err := s.cfg.Store.claim(a, octets)
	switch {
	case err == nil:
		settle(false)
		return nil
	case errors.Is(err, errOverQuota):
		return full
	}
	return s.storageError(err)
}
