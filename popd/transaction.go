package popd

import (
	"bytes"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"mailbag/popd/maildir"
)

// message finds the message that an argument names, among those that are not marked. Where there is none it
// answers so, and ok is false.
func (s *session) message(arg string) (i int, ok bool, err error) {
	n, parseErr := strconv.ParseUint(arg, 10, 31)
	switch {
	case parseErr != nil || n == 0 || n > uint64(len(s.drop.list.Messages)):
		return 0, false, s.mistake("There is no such message")
	case s.drop.isMarked(int(n - 1)):
		return 0, false, s.mistake("The message is marked as deleted")
	}
	return int(n - 1), true, nil
}

// text answers with a line of strings and numbers.
func (s *session) text(parts ...any) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			s.conn.text(p)
		case int64:
			s.conn.number(p)
		}
	}
	s.conn.text("\r\n")
}

func (s *session) stat(string) error {
	s.text("+OK ", int64(s.drop.count), " ", s.drop.octets)
	return nil
}

func (s *session) list(arg string) error {
	return s.each(arg, func(m *maildir.Message) { s.conn.number(m.Size()) })
}

func (s *session) uidl(arg string) error {
	return s.each(arg, func(m *maildir.Message) { s.conn.text(m.UniqueID()) })
}

// each writes something about one message, or about every one (RFC 1939, LIST and UIDL).
func (s *session) each(arg string, about func(*maildir.Message)) error {
	line := func(i int) {
		s.conn.number(int64(i + 1))
		s.conn.text(" ")
		about(&s.drop.list.Messages[i])
		s.conn.text("\r\n")
	}
	if arg != "" {
		i, ok, err := s.message(arg)
		if ok {
			s.conn.text("+OK ")
			line(i)
		}
		return err
	}
	s.text("+OK ", int64(s.drop.count), " messages")
	for i := range s.drop.list.Messages {
		if s.drop.isMarked(i) {
			continue
		}
		line(i)
		if err := s.conn.relieve(); err != nil {
			return err
		}
	}
	s.conn.say(".")
	return nil
}

func (s *session) dele(arg string) error {
	i, ok, err := s.message(arg)
	if ok {
		s.drop.mark(i)
		s.conn.say("+OK")
	}
	return err
}

func (s *session) rset(string) error {
	s.drop.reset()
	s.conn.say("+OK")
	return nil
}

func (s *session) retr(arg string) error {
	i, ok, err := s.message(arg)
	if !ok {
		return err
	}
	m := &s.drop.list.Messages[i]
	fd, err := s.drop.list.Open(m)
	if err != nil {
		return s.unreadable(m, err)
	}
	defer syscall.Close(fd)
	s.text("+OK ", m.Size(), " octets")
	s.record.Fetched++
	if err := s.content(fd, nil); err != nil {
		return err
	}
	s.drop.sent(i)
	return nil
}

// top sends the header and so many lines of the body (RFC 1939, TOP).
func (s *session) top(args string) error {
	number, count, _ := strings.Cut(args, " ")
	lines, err := strconv.ParseUint(count, 10, 31)
	if err != nil {
		return s.mistake("Write TOP, the message and a number of lines")
	}
	i, ok, err := s.message(number)
	if !ok {
		return err
	}
	m := &s.drop.list.Messages[i]
	fd, err := s.drop.list.Open(m)
	if err != nil {
		return s.unreadable(m, err)
	}
	defer syscall.Close(fd)
	s.conn.say("+OK")
	return s.content(fd, &excerpt{lines: int(lines)})
}

// unreadable answers for a message that cannot be opened: the others can.
func (s *session) unreadable(m *maildir.Message, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		s.refuse("The message is gone: another program has removed it")
		return nil
	}
	s.server.log.Error("a message cannot be read", "account", s.record.Account, "mailbox", s.record.Mailbox, "error", err)
	s.refuse("[SYS/TEMP] The message cannot be read")
	return nil
}

// blocks are the buffers through which files are read.
var blocks = sync.Pool{New: func() any {
	b := make([]byte, 64<<10)
	return &b
}}

// content sends a file, or what the excerpt wants of it. Once it has begun, an error can be told by the end of
// the connection alone.
func (s *session) content(fd int, part *excerpt) error {
	block := blocks.Get().(*[]byte)
	defer blocks.Put(block)
	out := s.conn.output()
	var wire maildir.Wire
	for more := true; more; {
		n, err := syscall.Read(fd, *block)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			s.server.log.Error("a message cannot be read to its end", "account", s.record.Account,
				"mailbox", s.record.Mailbox, "error", err)
			return errUnread
		}
		piece := (*block)[:n]
		more = n > 0 // less than asked for may be all that lies before a sector that cannot be read
		if part != nil {
			piece, more = part.take(piece, more)
		}
		before := len(*out)
		*out = wire.Append(*out, piece)
		s.record.Bytes += int64(len(*out) - before)
		if err := s.conn.relieve(); err != nil {
			return err
		}
	}
	before := len(*out)
	*out = wire.End(*out)
	s.record.Bytes += int64(len(*out) - before)
	*out = append(*out, ".\r\n"...)
	return nil
}

// An excerpt is a message's header and some lines of its body.
type excerpt struct {
	lines int  // of the body, still wanted
	body  bool // the header is over
	begun bool // the present line has something in it
}

// take cuts a piece of the message where it has had enough, and reports whether it wants more.
func (e *excerpt) take(piece []byte, more bool) ([]byte, bool) {
	for at := 0; at < len(piece); {
		if e.body && e.lines == 0 {
			return piece[:at], false
		}
		end := bytes.IndexByte(piece[at:], '\n')
		line := piece[at:]
		if end >= 0 {
			line = piece[at : at+end]
		}
		empty := len(bytes.Trim(line, "\r")) == 0 && !e.begun
		e.begun = !empty
		if end < 0 {
			break
		}
		switch {
		case e.body:
			e.lines--
		case empty:
			e.body = true
		}
		e.begun = false
		at += end + 1
	}
	return piece, more && !(e.body && e.lines == 0)
}
