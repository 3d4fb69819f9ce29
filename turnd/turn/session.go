package turn

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"mailbag/turnd/relay"
)

// Bounds of a session with the MTA.
const (
	commandLine   = 4096 // octets; ORCPT alone may have 500 (RFC 3461, section 4.2)
	maxRecipients = 2000 // of a message
	sessionIdle   = 10 * time.Minute
	contentIdle   = 10 * time.Minute // without an octet of a message; Postfix reads its queue file without pause
	replyTime     = 5 * time.Minute  // for the MTA to take a reply
)

// A session is one connection of the MTA: LMTP (RFC 2033) as Postfix's lmtp client speaks it, with
// PIPELINING (RFC 2920), ENHANCEDSTATUSCODES (RFC 2034) and XFORWARD (XFORWARD_README), which
// names the message, as its Received field does. What else is offered is what the customer's server offers.
type session struct {
	gate *gate
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer

	offered relay.Extensions
	id      string // queue ID of the message to come, or under way
	from    string
	open    bool // MAIL was accepted
	to      []string
	left    bool // a recipient in a domain of the account was left for another turn
}

func (s *session) run() {
	<-s.gate.opened
	s.in, s.out = bufio.NewReaderSize(s.conn, 16<<10), bufio.NewWriterSize(patient{s.conn}, 4<<10)
	s.say("220 " + s.gate.turn.cfg.Hostname + " LMTP mailbag-turnd")
	for {
		if s.in.Buffered() == 0 { // RFC 2920, section 3.2: the replies of a group travel together
			if s.out.Flush() != nil {
				return
			}
		}
		s.conn.SetReadDeadline(time.Now().Add(sessionIdle))
		line, err := readCommand(s.in)
		if errors.Is(err, errLongLine) {
			s.say("500 5.5.2 The line is too long")
			continue
		}
		if err != nil {
			return
		}
		if !s.command(line) {
			s.out.Flush()
			return
		}
	}
}

// patient gives the MTA replyTime for each write: replies that wait for the customer's server may be more than the
// buffer holds.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	p.SetWriteDeadline(time.Now().Add(replyTime))
	return p.Conn.Write(b)
}

func (s *session) say(reply string) {
	s.out.WriteString(reply)
	s.out.WriteString("\r\n")
}

// command answers one command. It returns false when the session is over.
func (s *session) command(line string) bool {
	verb, rest := splitVerb(line)
	switch verb {
	case "LHLO":
		s.hello()
	case "XFORWARD":
		s.id = xforwardID(rest, s.id)
		s.say("250 2.0.0 Ok")
	case "MAIL":
		s.mail(rest)
	case "RCPT":
		s.rcpt(rest)
	case "DATA":
		return s.data()
	case "RSET":
		s.reset()
		s.say("250 2.0.0 Ok")
	case "NOOP":
		s.say("250 2.0.0 Ok")
	case "VRFY":
		s.say("252 2.0.0 Send some mail, it is the customer's server that knows")
	case "QUIT":
		s.say("221 2.0.0 Bye")
		return false
	default:
		s.say("500 5.5.2 This is no command of LMTP")
	}
	return true
}

func (s *session) reset() { s.open, s.from, s.to, s.left, s.id = false, "", nil, false, "" }

// hello offers what the customer's server offers. Without one everything is offered, so that nothing is
// refused for good that the next turn can deliver.
func (s *session) hello() {
	s.offered = relay.Extensions{Size: true, EightBit: true, UTF8: true, DSN: true}
	if channel, _ := s.gate.current(); channel != nil {
		s.offered = channel.Extensions()
	}
	lines := []string{s.gate.turn.cfg.Hostname, "PIPELINING", "ENHANCEDSTATUSCODES", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"}
	if s.offered.Size {
		size := "SIZE"
		if s.offered.SizeLimit > 0 {
			size = fmt.Sprintf("SIZE %d", s.offered.SizeLimit)
		}
		lines = append(lines, size)
	}
	for _, e := range []struct {
		name    string
		offered bool
	}{{"8BITMIME", s.offered.EightBit}, {"SMTPUTF8", s.offered.UTF8}, {"DSN", s.offered.DSN}} {
		if e.offered {
			lines = append(lines, e.name)
		}
	}
	for _, line := range lines[:len(lines)-1] {
		s.say("250-" + line)
	}
	s.say("250 " + lines[len(lines)-1])
}

func (s *session) mail(arguments string) {
	_, refusal := s.gate.current()
	path, err := parsePath("FROM:", arguments, s.offered, mailParameters)
	switch {
	case s.open:
		s.say("503 5.5.1 MAIL was said already")
	case refusal != "":
		s.gate.turn.window.pass(s.id)
		s.say("451 " + refusal)
	case err != nil:
		s.say(err.Error())
	default:
		s.open, s.from = true, path.text
		s.say("250 2.1.0 Ok")
	}
}

func (s *session) rcpt(arguments string) {
	path, err := parsePath("TO:", arguments, s.offered, rcptParameters)
	switch {
	case !s.open:
		s.say("503 5.5.1 MAIL comes first")
	case err != nil:
		s.say(err.Error())
	case len(s.to) >= maxRecipients:
		s.say("452 4.5.3 Too many recipients")
	default:
		if refusal, ours := s.gate.takes(path.domain); refusal != "" {
			s.left = s.left || ours
			s.gate.turn.window.pass(s.id)
			s.say(refusal)
			return
		}
		s.to = append(s.to, path.text)
		s.say("250 2.1.5 Ok")
	}
}

// data takes a message and answers for each recipient (RFC 2033, section 4.2).
func (s *session) data() bool {
	if len(s.to) == 0 {
		s.say("503 5.5.1 There is no recipient")
		return true
	}
	defer s.reset()
	s.say("354 Go on, end with a dot")
	if s.out.Flush() != nil {
		return false
	}
	content := content{in: s.in, conn: s.conn}
	trace, err := content.trace()
	if err != nil {
		return false
	}
	window := s.gate.turn.window
	// IDENT is another system's where the message came with one, as from a content filter (FILTER_README).
	if id := traceID(trace); !window.knows(s.id) && window.knows(id) {
		s.id = id
	}
	window.bring(s.id)
	fate := dropped
	defer func() { window.answer(s.id, content.size, len(s.to), fate) }()
	confirmed, keys := s.gate.turn.confirmed, letterKeys(s.gate.turn.account.ID, s.id, trace, s.from, s.to)
	replies := confirmed.begin(keys, len(s.to))
	var to []string
	var index []int // of each in s.to
	for i, r := range replies {
		if r.Code == 0 {
			to, index = append(to, s.to[i]), append(index, i)
		}
	}
	begun := time.Now()
	answers, heard := s.pass(&content, to)
	for i, r := range answers {
		replies[index[i]] = r
	}
	confirmed.end(keys, replies)
	s.gate.turn.tell(answers, content.size, time.Since(begun))
	if !heard {
		return false
	}
	for _, r := range replies {
		s.reply(r)
	}
	if s.out.Flush() != nil {
		return false
	}
	fate = fateOf(replies)
	if s.left && fate == taken {
		fate = shared
	} else if s.left {
		fate = kept
	}
	return true
}

// pass passes a message on as it comes, and returns an answer for each of the recipients. heard is false if the MTA went
// away meanwhile; then there may be none.
func (s *session) pass(c *content, to []string) (answers []relay.Reply, heard bool) {
	channel, refusal := s.gate.current()
	if refusal != "" || len(to) == 0 {
		err := c.copy(nil)
		return repeat(relay.Reply{Code: 451, Text: refusal}, len(to)), err == nil
	}
	delivery := channel.Begin(s.from, to)
	if err := c.copy(delivery); err != nil {
		delivery.Abort()
		return nil, false
	}
	if c.bareLF { // RFC 5321, section 2.3.8; what the customer's server made of it, nobody knows
		delivery.Abort()
		return repeat(relay.Reply{Code: 554, Text: "5.6.0 The message has a line feed without a carriage return"}, len(to)), true
	}
	return s.commit(delivery)
}

// commit waits for the answers of the customer's server. If the MTA goes away meanwhile, heard is false and the message
// withdrawn as far as it can be: the MTA is going to bring it again.
func (s *session) commit(delivery *relay.Delivery) (replies []relay.Reply, heard bool) {
	s.conn.SetReadDeadline(time.Time{})
	watch := make(chan bool)
	go func() {
		gone := s.gone()
		if gone {
			delivery.Withdraw()
		}
		watch <- gone
	}()
	replies = delivery.Commit()
	s.conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch; the next command sets its own
	return replies, !<-watch
}

// gone waits until the MTA's connection has ended, and returns true, or until the deadline for reading. What the MTA
// sends meanwhile is read later: Postfix says QUIT behind the content of its last message.
func (s *session) gone() bool {
	for {
		_, err := s.in.Peek(s.in.Buffered() + 1)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, bufio.ErrBufferFull):
			return false
		case err != nil:
			return true
		}
	}
}

// tell counts what the customer's server said about a message, and how long it took.
func (t *turn) tell(answers []relay.Reply, size int64, took time.Duration) {
	for _, r := range answers {
		t.metrics.answered(r)
	}
	if slices.ContainsFunc(answers, relay.Reply.Positive) {
		t.count(size)
		t.metrics.delivered(size, took)
	}
}

// fateOf is what becomes of a message for whose recipients the MTA was told so.
func fateOf(replies []relay.Reply) fate {
	transient := 0
	for _, r := range replies {
		if r.Transient() {
			transient++
		}
	}
	switch {
	case transient == 0:
		return taken
	case transient < len(replies):
		return partly
	}
	return kept
}

func repeat(r relay.Reply, n int) []relay.Reply {
	replies := make([]relay.Reply, n)
	for i := range replies {
		replies[i] = r
	}
	return replies
}

// reply passes the customer's server's words on, as far as LMTP has room for them.
func (s *session) reply(r relay.Reply) {
	code := r.Code
	if code == 421 || code < 200 || code > 599 || code/100 == 3 { // 421 would end the MTA's session as well
		code = 451
	}
	lines := strings.Split(r.Text, "\n")
	for i, line := range lines {
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		s.say(fmt.Sprint(code) + mark + line[:min(len(line), 400)])
	}
}

// oneLine makes an error fit into a reply.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
}
