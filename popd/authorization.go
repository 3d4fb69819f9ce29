package popd

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/popd/maildir"
)

// stls begins TLS (RFC 2595, section 4). What came behind it in the clear may be somebody else's.
func (s *session) stls(string) error {
	config := s.server.cfg.TLS()
	switch {
	case s.conn.tls != nil:
		return s.mistake("TLS is there already")
	case config == nil:
		return s.mistake("There is no certificate for TLS")
	case s.conn.start != s.conn.end:
		return errInjection
	}
	s.conn.say("+OK Begin TLS")
	if err := s.conn.flush(); err != nil {
		return err
	}
	if !s.conn.startTLS(config) {
		return errGone
	}
	s.user = ""
	return nil
}

// utf8 is for clients that can read UTF-8 in headers (RFC 6856, section 2). There is nothing to switch on.
func (s *session) utf8(string) error {
	s.conn.say("+OK")
	return nil
}

func (s *session) userName(args string) error {
	if !s.peer().PlainAllowed() {
		return s.mistake("A password is not taken in the clear; use STLS, or the port with TLS")
	}
	if args == "" {
		return s.mistake("Write USER and your name")
	}
	s.user = args
	s.conn.say("+OK")
	return nil
}

// pass logs in. A password may have spaces (RFC 1939, section 7).
func (s *session) pass(password string) error {
	user := s.user
	if s.user = ""; user == "" {
		return s.mistake("Say USER first")
	}
	if err := s.conn.flush(); err != nil { // the check may take long
		return err
	}
	id, err := s.server.cfg.Logins.Password(s.server.clients.Context(), s.peer(), user, password)
	return s.enter(id, err)
}

// auth logs in by SASL (RFC 5034). Without a mechanism it lists them, as RFC 1734's clients expect.
func (s *session) auth(args string) error {
	name, initial, hasInitial := strings.Cut(args, " ")
	if name == "" {
		return s.lines("These are the mechanisms", s.server.cfg.Logins.Mechanisms(s.peer())...)
	}
	exchange, err := s.server.cfg.Logins.Start(s.server.clients.Context(), s.peer(), name)
	if err != nil {
		return s.enter(login.Identity{}, err)
	}
	var response []byte
	if hasInitial {
		// RFC 5034, section 4: "=" is an initial response that is empty.
		if response, err = decode(strings.TrimPrefix(initial, "=")); err != nil {
			return s.mistake("[AUTH] That is not base64")
		}
	}
	for {
		challenge, done, err := exchange.Next(response)
		if err != nil || done {
			return s.enter(exchange.Identity(), err)
		}
		s.conn.say("+ ", base64.StdEncoding.EncodeToString(challenge))
		line, err := s.conn.line(responseLimit)
		if err != nil {
			return err
		}
		if string(line) == "*" {
			return s.mistake("[AUTH] You gave up")
		}
		if response, err = decode(string(line)); err != nil {
			return s.mistake("[AUTH] That is not base64")
		}
	}
}

// decode never returns nil without an error: that would be no response, and not an empty one.
func decode(text string) ([]byte, error) {
	return base64.StdEncoding.AppendDecode([]byte{}, []byte(text))
}

// enter opens the mailbox of who has logged in, or says why not (response codes: RFC 2449, section 8.1.1, and
// RFC 3206).
func (s *session) enter(id login.Identity, err error) error {
	switch {
	case err == nil:
	case errors.Is(err, login.ErrUnknownMechanism), errors.Is(err, login.ErrEncryptionRequired):
		return s.mistake(sentence(err))
	case errors.Is(err, login.ErrUnavailable):
		return s.mistake("[SYS/TEMP] ", sentence(login.ErrUnavailable))
	case errors.Is(err, login.ErrThrottled):
		return s.mistake("[SYS/TEMP] ", sentence(login.ErrThrottled))
	case errors.Is(err, login.ErrSuspended):
		return s.mistake("[AUTH] ", sentence(login.ErrSuspended))
	case errors.Is(err, login.ErrNotAllowed):
		return s.mistake("[AUTH] ", sentence(login.ErrNotAllowed))
	default:
		return s.mistake("[AUTH] ", sentence(login.ErrFailed))
	}
	switch same, err := s.server.stillHas(s.server.clients.Context(), id); {
	case err != nil:
		return s.mistake("[SYS/TEMP] ", sentence(login.ErrUnavailable))
	case !same:
		return s.mistake("[SYS/TEMP] The mailbox was changed at this moment; log in again")
	}
	drop, err := openMaildrop(s.server.cfg.Store.Maildir(id.Account.Name, id.Maildir))
	if errors.Is(err, maildir.ErrInUse) {
		return s.mistake("[IN-USE] Another session has this mailbox")
	}
	if err != nil {
		s.server.log.Error("a mailbox cannot be opened", "account", id.Account.Name, "mailbox", id.Mailbox, "error", err)
		return s.mistake("[SYS/TEMP] The mailbox cannot be opened")
	}
	if err := drop.list.Unkept; err != nil {
		s.server.log.Warn("sizes of messages could not be kept; the next session computes them again",
			"account", id.Account.Name, "mailbox", id.Mailbox, "error", err)
	}
	s.drop = drop
	s.began(id, s.server.cfg.Now())
	s.text("+OK ", int64(drop.count), " messages, ", drop.octets, " octets")
	return nil
}

// stillHas reports whether the mailbox is the one that the name was looked up for: the password may be that of
// the next owner of the address, or of the former, because it was checked later, and the answer may have been delayed.
func (s *Server) stillHas(ctx context.Context, id login.Identity) (bool, error) {
	d, err := s.cfg.Accounts.Fresh(ctx)
	if err != nil {
		return false, err
	}
	a := d.AccountByID(id.Account.ID)
	if a == nil || id.Mailbox == "" {
		return a != nil, nil
	}
	return d.Mailbox(meter.KeyAddress(id.Mailbox)) == a && d.Maildir(id.Mailbox) == id.Maildir, nil
}

// sentence is an error as a reply has it.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
