package popd

import (
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/meter/login"
)

// A session is one POP3 client, from greeting to end (RFC 1939, section 3).
type session struct {
	server *Server
	conn   *conn
	client door.Client
	settle func() // keeps its place

	user     string // as USER gave it
	drop     *maildrop
	record   meter.PopSession
	mistakes int
	commands int  // before the log-in
	refused  bool // the present command
}

// errQuit ends a session as it should.
var errQuit = errors.New("done")

// A command is what a client may say.
type command struct {
	before, after bool // whether before log-in (AUTHORIZATION), and after it (TRANSACTION)
	run           func(s *session, args string) error
}

var commands map[string]command

func init() { // CAPA is among them and speaks of them
	commands = map[string]command{
		"CAPA": {true, true, (*session).capa},
		"QUIT": {true, true, (*session).quit},
		"NOOP": {false, true, (*session).noop},
		"LANG": {true, true, (*session).lang},

		"STLS": {true, false, (*session).stls},
		"USER": {true, false, (*session).userName},
		"PASS": {true, false, (*session).pass},
		"AUTH": {true, false, (*session).auth},
		"UTF8": {true, false, (*session).utf8},

		"STAT": {false, true, (*session).stat},
		"LIST": {false, true, (*session).list},
		"UIDL": {false, true, (*session).uidl},
		"RETR": {false, true, (*session).retr},
		"TOP":  {false, true, (*session).top},
		"DELE": {false, true, (*session).dele},
		"RSET": {false, true, (*session).rset},
	}
}

// MessageLine is what the log says at a session's end of each message that was sent whole or deleted in it.
const MessageLine = "message handed over"

// run is the session's life.
func (s *session) run() {
	s.conn.say("+OK ", s.server.cfg.Hostname, " POP3 server ready")
	err := s.converse()
	switch err {
	case errLong, errMistakes, errTalk, errInjection:
		s.conn.say("-ERR The connection is closed: ", err.Error())
	case errStopping:
		s.conn.say("-ERR [SYS/TEMP] The connection is closed: ", err.Error())
	}
	s.conn.flush()
	if s.drop == nil {
		return
	}
	s.drop.close()
	s.record.Ended = s.server.cfg.Now()
	s.record.Outcome = err.Error()
	s.drop.changed(func(name string, fetched, deleted bool) {
		s.server.log.Info(MessageLine, "account", s.record.Account, "mailbox", s.record.Mailbox, "client", s.record.Client,
			"message", name, "fetched", fetched, "deleted", deleted)
	})
	s.server.ended(&s.record, err)
}

// converse answers one command after another, and returns why the session ends.
func (s *session) converse() error {
	for {
		line, err := s.conn.line(commandLimit)
		if err != nil {
			return err
		}
		word, args, _ := strings.Cut(string(line), " ")
		word = strings.ToUpper(word)
		if word != "PASS" { // whose argument is all of the rest (RFC 1939, section 7)
			args = strings.TrimRight(args, " ")
		}
		c, known := commands[word]
		loggedIn := s.drop != nil
		if !loggedIn {
			if s.commands++; s.commands > s.server.cfg.Bounds.Commands {
				return errTalk
			}
		}
		s.refused = false
		switch {
		case !known:
			word = otherCommand
			err = s.mistake("There is no such command")
		case loggedIn && !c.after:
			err = s.mistake("This is for before the log-in")
		case !loggedIn && !c.before:
			err = s.mistake("Log in first")
		default:
			err = c.run(s, args)
		}
		s.server.metrics.answered(word, s.refused)
		if err != nil {
			return err
		}
		if err := s.conn.relieve(); err != nil {
			return err
		}
	}
}

// refuse answers what cannot be done, with a response code (RFC 2449, section 8) in front where there is one.
func (s *session) refuse(parts ...string) {
	s.refused = true
	s.conn.text("-ERR ")
	s.conn.say(parts...)
}

// mistake refuses what the client should not have said.
func (s *session) mistake(parts ...string) error {
	s.refuse(parts...)
	if s.mistakes++; s.mistakes > s.server.cfg.Bounds.Mistakes {
		return errMistakes
	}
	return nil
}

// lines answers with several (RFC 1939, section 3).
func (s *session) lines(first string, lines ...string) error {
	s.conn.say("+OK ", first)
	for _, l := range lines {
		s.conn.say(l)
	}
	s.conn.say(".")
	return nil
}

// peer is the client as log-in checks see it.
func (s *session) peer() login.Peer {
	return login.Peer{Addr: s.client.Addr, Local: s.client.Local, TLS: s.conn.tls, Plain: s.server.cfg.Plain()}
}

// capa lists what there is, that for logging in after it, too (RFC 2449, section 5); STLS while it may be said
// (RFC 2595, section 4).
func (s *session) capa(string) error {
	list := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER", "LANG"}
	if s.drop == nil && s.conn.tls == nil && s.server.cfg.TLS() != nil {
		list = append(list, "STLS")
	}
	if s.peer().PlainAllowed() {
		list = append(list, "USER")
	}
	if mechanisms := s.server.cfg.Logins.Mechanisms(s.peer()); len(mechanisms) > 0 {
		list = append(list, "SASL "+strings.Join(mechanisms, " "))
	}
	return s.lines("This is what there is", append(list, "IMPLEMENTATION mailbag")...)
}

func (s *session) noop(string) error {
	s.conn.say("+OK")
	return nil
}

// lang lets the client choose among one language (RFC 6856, section 3).
func (s *session) lang(args string) error {
	switch strings.ToLower(args) {
	case "":
		return s.lines("These are the languages", "en English", "i-default English")
	case "*", "i-default":
		s.conn.say("+OK i-default This is English")
	case "en":
		s.conn.say("+OK en This is English")
	default:
		return s.mistake("There is only English")
	}
	return nil
}

// quit ends the session: what was marked is deleted now (RFC 1939, section 6).
func (s *session) quit(string) error {
	if s.drop == nil {
		s.conn.say("+OK")
		return errQuit
	}
	// What was fetched is on its way before it is deleted.
	if err := s.conn.flush(); err != nil {
		return err
	}
	deleted, err := s.drop.update(&s.server.syncer)
	s.drop.close() // before the answer: the client may come again at once
	s.record.Deleted = int64(deleted)
	if deleted > 0 {
		s.server.cfg.Store.freed(s.record.Account)
	}
	if err != nil {
		s.server.log.Error("messages could not be deleted", "account", s.record.Account, "mailbox", s.record.Mailbox, "error", err)
		s.refuse("[SYS/TEMP] Some messages were not deleted")
		return errors.New("messages could not be deleted")
	}
	s.conn.say("+OK")
	return errQuit
}

// began is when the session's owner logged in.
func (s *session) began(id login.Identity, now time.Time) {
	s.record = meter.PopSession{Account: id.Account.Name, Mailbox: id.Mailbox, Client: s.client.Addr.String(), Began: now}
	if s.conn.tls != nil {
		s.record.TLS = tls.VersionName(s.conn.tls.Version)
	}
	s.conn.until = time.Time{}
	s.settle()
}
