package turn

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
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
	domains []string // of the account, among the recipients
	more    bool     // a recipient was left for the next transaction
	shut    bool     // and one that was put off in this turn, for the next turn
}

// buffers are those of sessions that are over: every message comes on a connection of its own.
var buffers = sync.Pool{New: func() any {
	return &bufferPair{bufio.NewReaderSize(nil, 16<<10), bufio.NewWriterSize(nil, 4<<10)}
}}

type bufferPair struct {
	in  *bufio.Reader
	out *bufio.Writer
}

func (s *session) run() {
	<-s.gate.opened
	b := buffers.Get().(*bufferPair)
	defer func() {
		b.in.Reset(nil)
		b.out.Reset(nil)
		buffers.Put(b)
	}()
	b.in.Reset(s.conn)
	b.out.Reset(patient{s.conn})
	s.in, s.out = b.in, b.out
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

func (s *session) reset() {
	s.open, s.from, s.to, s.domains, s.more, s.shut, s.id = false, "", nil, nil, false, false, ""
}

// hello offers what the customer's server offers.
func (s *session) hello() {
	s.offered = s.gate.offers()
	lines := []string{s.gate.turn.cfg.Hostname, "PIPELINING", "ENHANCEDSTATUSCODES", "XFORWARD IDENT"}
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
	refusal := s.gate.refused()
	path, err := parsePath("FROM:", arguments, s.offered, mailParameters)
	switch {
	case s.open:
		s.say("503 5.5.1 MAIL was said already")
	case refusal != "":
		s.gate.turn.window.passed(s.id)
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
	case len(s.to) >= maxRecipients, s.offered.MaxRecipients > 0 && len(s.to) >= s.offered.MaxRecipients:
		s.more = true
		s.say("452 4.5.3 Too many recipients")
	case s.gate.turn.window.isShut(s.id, path.text):
		s.shut = true
		s.say("450 4.2.0 The customer's server has put this recipient off")
	default:
		domain, refusal := s.gate.takes(path.domain)
		if refusal != "" {
			s.gate.turn.window.passed(s.id)
			s.say(refusal)
			return
		}
		if !slices.Contains(s.domains, domain) {
			s.domains = append(s.domains, domain)
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
	window := s.gate.turn.window
	window.enter()
	defer window.leave()
	d := &transaction{session: s, window: window, verdict: again}
	if window.has(s.id) {
		d.bring()
	}
	defer d.end()
	return d.run()
}

// A transaction is one message on its way from the MTA to the customer's server.
type transaction struct {
	*session
	window  *window
	channel *relay.Channel
	content content
	brought bool // the window knows of it
	verdict verdict
}

func (d *transaction) bring() {
	d.window.bring(d.id)
	d.brought = true
}

func (d *transaction) end() {
	if d.brought {
		d.window.answered(d.id, d.content.size, len(d.to), d.domains, d.verdict)
	}
}

// run returns false when the session is over.
func (d *transaction) run() bool {
	if d.brought {
		if why, v := d.window.admits(d.id, d.to); why != "" {
			d.verdict = v
			d.say("451 " + why)
			return true
		}
	}
	channel, refusal, closed := d.gate.await()
	switch {
	case closed:
		d.verdict = untried
		fallthrough
	case refusal != "":
		d.say("451 " + refusal)
		return true
	case !sameOffers(d.offered, channel.Extensions()): // the MTA made its message fit what was offered
		d.say("451 4.3.0 The customer's server offers something else now")
		d.out.Flush()
		return false
	}
	d.channel = channel
	d.say("354 Go on, end with a dot")
	if d.out.Flush() != nil {
		return false
	}
	d.content = content{in: d.in, conn: d.conn}
	trace, err := d.content.trace()
	if err != nil {
		return false
	}
	// IDENT is another system's where the message came with one, as from a content filter (FILTER_README).
	if id := traceID(trace); !d.brought {
		if d.id == "" || d.window.has(id) {
			d.id = id
		}
		d.bring()
		if why, v := d.window.admits(d.id, d.to); why != "" {
			d.verdict = v
			return d.decline(relay.Reply{Code: 451, Text: why})
		}
	}
	return d.deliver(trace)
}

// decline takes nothing of a message of which only its content told which one it is.
func (d *transaction) decline(r relay.Reply) bool {
	if d.content.copy(nil) != nil {
		return false
	}
	for range d.to {
		d.reply(r)
	}
	return d.out.Flush() == nil
}

// deliver passes the message on to those who do not have it yet, and tells the MTA what came of it.
func (d *transaction) deliver(trace string) bool {
	t := d.gate.turn
	keys := letterKeys(t.account.ID, d.id, trace, d.from, d.to)
	replies := t.confirmed.begin(keys, len(d.to))
	var to []string
	var index []int // of each in d.to
	for i, r := range replies {
		if r.Code == 0 {
			to, index = append(to, d.to[i]), append(index, i)
		}
	}
	begun := time.Now()
	answers, fate, heard := d.pass(to)
	for i, r := range answers {
		replies[index[i]] = r
	}
	t.confirmed.end(keys, replies)
	t.tell(answers, d.content.size, time.Since(begun))
	if !heard {
		return false
	}
	for _, r := range replies {
		d.reply(r)
	}
	if d.out.Flush() != nil {
		return false
	}
	d.verdict = verdictOn(replies, fate)
	if d.more && (d.verdict == gone || d.verdict == kept && d.window.shutOut(d.id, d.to, replies)) {
		d.verdict = again
	} else if d.shut {
		d.verdict = max(d.verdict, kept)
	}
	return true
}

// pass passes the message on as it comes, and returns an answer for each of the recipients. heard is false if the MTA went
// away meanwhile; then there may be none.
func (d *transaction) pass(to []string) (answers []relay.Reply, fate relay.Fate, heard bool) {
	if len(to) == 0 {
		err := d.content.copy(nil)
		return nil, relay.Answered, err == nil
	}
	delivery := d.channel.Begin(d.from, to)
	if err := d.content.copy(delivery); err != nil {
		delivery.Abort()
		return nil, relay.Unsent, false
	}
	if d.content.bareLF { // RFC 5321, section 2.3.8; what the customer's server made of it, nobody knows
		delivery.Abort()
		return repeat(relay.Reply{Code: 554, Text: "5.6.0 The message has a line feed without a carriage return"}, len(to)), relay.Answered, true
	}
	answers, fate, heard = d.commit(delivery)
	d.gate.turn.note(delivery, to)
	return answers, fate, heard
}

// sameOffers reports whether a message that was made for some extensions fits others.
func sameOffers(a, b relay.Extensions) bool {
	return a.EightBit == b.EightBit && a.UTF8 == b.UTF8 && a.DSN == b.DSN && a.Size == b.Size
}

// watchAfter is how long an answer takes until it pays to look whether the MTA is still there.
const watchAfter = 50 * time.Millisecond

// commit waits for the answers of the customer's server. If the MTA goes away meanwhile, heard is false and the message
// withdrawn as far as it can be: the MTA is going to bring it again.
func (s *session) commit(delivery *relay.Delivery) (replies []relay.Reply, fate relay.Fate, heard bool) {
	delivery.Complete()
	soon := time.NewTimer(watchAfter)
	defer soon.Stop()
	select {
	case <-delivery.Settled():
		replies, fate = delivery.Commit()
		return replies, fate, true
	case <-soon.C:
	}
	s.conn.SetReadDeadline(time.Time{})
	watch := make(chan bool)
	go func() {
		gone := s.gone()
		if gone {
			delivery.Withdraw()
		}
		watch <- gone
	}()
	replies, fate = delivery.Commit()
	s.conn.SetReadDeadline(time.Unix(1, 0)) // ends the watch; the next command sets its own
	return replies, fate, !<-watch
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

// note remembers whom the customer's server took, and whom it does not know.
func (t *turn) note(d *relay.Delivery, to []string) {
	if !t.reversed() {
		return // see putsOff
	}
	for i, path := range to {
		switch d.Recipient(i) {
		case relay.Taken:
			t.memory.recipient(t.account.ID, path, true)
		case relay.Unknown:
			t.memory.recipient(t.account.ID, path, false)
			t.refusals.Add(1)
		}
	}
}

// putsOff reports whether a message for these recipients goes last: a reversed turn has one connection, and a server may end
// it after so many refusals. Those that it refused lately are last, and after some refusals all that it is not known to take.
func (t *turn) putsOff(to []string) bool {
	if !t.reversed() {
		return false
	}
	strict := t.refusals.Load() >= maxPatience
	for _, path := range to {
		if taken, asked := t.memory.taken(t.account.ID, path); taken || !asked && !strict {
			return false
		}
	}
	return true
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
