package postfixtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Message is one message that a Sink has been given.
type Message struct {
	Helo       string   // argument of EHLO or HELO
	TLS        string   // version that it came by, such as "TLS 1.3"; empty: in the clear
	From       string   // reverse-path without angle brackets
	FromParams string   // what followed the reverse-path, such as "SIZE=120 BODY=8BITMIME"
	Recipients []string // accepted ones, in order, without angle brackets
	Data       []byte   // content with its CRLF line ends, after transparency (RFC 5321, section 4.5.2) was undone
}

// Chunking are the keywords of a Sink as good as any server: those of its default, DSN and CHUNKING.
var Chunking = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"}

// A Sink is an SMTP server that plays the customer's: it records what it is given. The functions may be set until
// Start, and are called from one goroutine per connection. It has no limits and is for loopback only.
type Sink struct {
	Extensions  []string                       // EHLO keywords; nil: PIPELINING, 8BITMIME, SMTPUTF8, SIZE, ENHANCEDSTATUSCODES. CHUNKING may be one
	OnRecipient func(address string) string    // reply to RCPT; nil or "": 250. 2xx accepts, 421 hangs up
	OnMessage   func(m Message) (reply string) // reply to the final dot; nil or "": 250. Only 2xx is recorded. May block
	// OnCommand may answer a command in the sink's place; nil or "": the sink does. A refused BDAT's chunk is not read, and is
	// taken for commands. A reply of several lines counts by its last.
	OnCommand func(s *Session, verb, argument string) (reply string)

	GreetsAfter time.Duration // how long a client waits for its greeting
	TLS         *tls.Config   // STARTTLS is offered; nil: it is not
	// It offers PIPELINING, and of commands that come together it reads the first.
	SwallowsGroups bool

	addr string

	mu       sync.Mutex
	sessions int
	listener net.Listener
	open     map[net.Conn]bool
	serving  *sync.WaitGroup
	messages []Message
	arrived  chan struct{} // closed and replaced at every message
}

// A Session is one connection to a Sink.
type Session struct {
	Number int    // of the connection, from 1
	Mails  int    // transactions that were begun in it
	Taken  int    // messages that were taken in it
	TLS    string // version; empty: it is not encrypted
}

// HangUp as a reply of a Sink's functions closes the connection without one. What was answered before arrives.
const HangUp = "hang up"

// NewSink returns a sink with a port of its own that nobody listens on before Start.
func NewSink() (*Sink, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	return &Sink{addr: fmt.Sprintf("127.0.0.1:%d", port), arrived: make(chan struct{})}, nil
}

// RunSink is NewSink and Start for a test, which stops it at its end.
func RunSink(t testing.TB) *Sink {
	t.Helper()
	s, err := NewSink()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Addr is the sink's host and port, the same for its whole life.
func (s *Sink) Addr() string { return s.addr }

// Start listens and serves until Stop.
func (s *Sink) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return fmt.Errorf("the sink on %s runs already", s.addr)
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("cannot start the sink: %w", err)
	}
	serving := &sync.WaitGroup{}
	s.listener, s.open, s.serving = l, map[net.Conn]bool{}, serving
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.listener != l { // stopped between Accept and here
				s.mu.Unlock()
				_ = conn.Close()
				return
			}
			s.open[conn] = true
			s.sessions++
			session := &Session{Number: s.sessions}
			s.mu.Unlock()
			serving.Go(func() {
				s.serve(conn, session)
				_ = conn.Close()
				s.mu.Lock()
				delete(s.open, conn)
				s.mu.Unlock()
			})
		}
	})
	return nil
}

// Stop closes the port and every connection, and waits for them: nothing more is read, and what was taken is answered.
// Start may follow. Stopping twice does nothing.
func (s *Sink) Stop() {
	s.mu.Lock()
	l, serving := s.listener, s.serving
	if l == nil {
		s.mu.Unlock()
		return
	}
	s.listener = nil
	_ = closeListener(l)
	for conn := range s.open {
		_ = conn.(*net.TCPConn).CloseRead()
		_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second)) // to who does not read
	}
	s.mu.Unlock()
	serving.Wait()
}

// Messages returns what was accepted so far, oldest first.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// WaitMessages waits until n messages were accepted since the sink was made, and returns all of them.
func (s *Sink) WaitMessages(n int) ([]Message, error) { return s.MessagesWithin(Patience, n) }

// MessagesWithin is WaitMessages for who asks again where they have not come by then.
func (s *Sink) MessagesWithin(within time.Duration, n int) ([]Message, error) {
	deadline := time.After(within)
	for {
		s.mu.Lock()
		got, arrived := slices.Clone(s.messages), s.arrived
		s.mu.Unlock()
		if len(got) >= n {
			return got, nil
		}
		select {
		case <-arrived:
		case <-deadline:
			return got, fmt.Errorf("waited %v for %d messages at the sink; there are %d", within, n, len(got))
		}
	}
}

// Sessions is how many connections there have been.
func (s *Sink) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// serve speaks SMTP with one client.
func (s *Sink) serve(conn net.Conn, session *Session) {
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(reply string) bool {
		_, _ = w.WriteString(reply + "\r\n")
		if r.Buffered() > 0 { // answer a pipelined group in one go
			return true
		}
		return w.Flush() == nil
	}
	if s.GreetsAfter > 0 && !quiet(conn, r, s.GreetsAfter) || !say("220 sink.example ESMTP") {
		return
	}
	var m Message
	open := false // MAIL was taken
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		verb = strings.ToUpper(verb)
		reply, instead := "250 2.0.0 Ok", ""
		if s.OnCommand != nil {
			instead = s.OnCommand(session, verb, rest)
		}
		switch {
		case instead == HangUp:
			_ = w.Flush()
			hangUp(conn, r)
			return
		case instead != "" && !accepts(instead):
			verb, reply = "", instead
		}
		switch verb {
		case "":
		case "EHLO":
			m, open = Message{Helo: rest}, false
			reply = s.ehlo(session)
		case "HELO":
			m, open = Message{Helo: rest}, false
			reply = "250 sink.example"
		case "MAIL":
			m = Message{Helo: m.Helo, TLS: session.TLS}
			m.From, m.FromParams = path(rest)
			open = true
			session.Mails++
		case "RCPT":
			to, _ := path(rest)
			if !open { // RFC 5321, section 3.3
				reply = "503 5.5.1 MAIL comes first"
			} else if to == "" { // section 4.1.2
				reply = "501 5.1.3 Bad recipient address syntax"
			} else if s.OnRecipient != nil {
				if r := s.OnRecipient(to); r != "" {
					reply = r
				}
			}
			if strings.HasPrefix(reply, "2") {
				m.Recipients = append(m.Recipients, to)
			}
		case "DATA":
			if len(m.Recipients) == 0 {
				reply = "554 5.5.1 no valid recipients"
				break
			}
			_, _ = w.WriteString("354 go ahead\r\n")
			if w.Flush() != nil {
				return
			}
			if m.Data, err = content(r); err != nil {
				return
			}
			reply = s.take(session, m)
			m, open = Message{Helo: m.Helo}, false
		case "BDAT":
			var last bool
			if m.Data, last, err = chunk(r, m.Data, rest); err != nil {
				return
			}
			switch {
			case len(m.Recipients) == 0:
				reply = "503 5.5.1 no valid recipients" // RFC 3030, section 2: the chunk is read all the same
				m.Data = nil
			case last:
				reply = s.take(session, m)
				m, open = Message{Helo: m.Helo}, false
			}
		case "RSET":
			m, open = Message{Helo: m.Helo}, false
		case "NOOP":
		case "STARTTLS":
			if s.TLS == nil || session.TLS != "" {
				reply = "502 5.5.1 no TLS here"
				break
			}
			if !say("220 2.0.0 Ready") {
				return
			}
			secure := tls.Server(conn, s.TLS)
			if secure.Handshake() != nil {
				return
			}
			conn, session.TLS, m, open = secure, tls.VersionName(secure.ConnectionState().Version), Message{}, false
			r.Reset(secure)
			w.Reset(secure)
			continue
		case "QUIT":
			_, _ = w.WriteString("221 2.0.0 Bye\r\n")
			_ = w.Flush()
			return
		default:
			reply = "502 5.5.2 command not implemented"
		}
		if instead != "" && strings.HasPrefix(reply, "2") {
			reply = instead
		}
		if reply == HangUp {
			_ = w.Flush()
			hangUp(conn, r)
			return
		}
		if s.SwallowsGroups {
			_, _ = r.Discard(r.Buffered())
		}
		if !say(reply) {
			return
		}
		if strings.HasPrefix(reply, "421") { // RFC 5321, section 3.8
			_ = w.Flush()
			hangUp(conn, r)
			return
		}
	}
}

// hangUp ends a connection so that the client gets to read every reply: what it still sends is read, not reset.
func hangUp(conn net.Conn, r io.Reader) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, r)
	}
}

// quiet waits for so long, and reports whether the client is still there and has kept to it.
func quiet(conn net.Conn, r *bufio.Reader, d time.Duration) bool {
	_ = conn.SetReadDeadline(time.Now().Add(d))
	_, err := r.Peek(1)
	_ = conn.SetReadDeadline(time.Time{})
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// accepts reports whether a reply, by its last line, is a good one.
func accepts(reply string) bool {
	return strings.HasPrefix(reply[strings.LastIndexByte(reply, '\n')+1:], "2")
}

func (s *Sink) ehlo(session *Session) string {
	ext := s.Extensions
	if ext == nil {
		ext = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES"}
	}
	lines := append([]string{"sink.example"}, ext...)
	if s.TLS != nil && session.TLS == "" {
		lines = append(lines, "STARTTLS")
	}
	last := len(lines) - 1
	for i := range lines {
		lines[i] = map[bool]string{true: "250 ", false: "250-"}[i == last] + lines[i]
	}
	return strings.Join(lines, "\r\n")
}

// take asks what to answer, and records what is accepted.
func (s *Sink) take(session *Session, m Message) string {
	reply := ""
	if s.OnMessage != nil {
		reply = s.OnMessage(m)
	}
	if reply == "" {
		reply = "250 2.0.0 Ok"
	}
	if strings.HasPrefix(reply, "2") {
		session.Taken++
		s.mu.Lock()
		s.messages = append(s.messages, m)
		close(s.arrived)
		s.arrived = make(chan struct{})
		s.mu.Unlock()
	}
	return reply
}

// path splits "FROM:<user@domain> SIZE=1" into the address and the parameters. A quoted local part may hold ">".
func path(arg string) (address, params string) {
	_, arg, _ = strings.Cut(arg, ":")
	arg = strings.TrimPrefix(strings.TrimLeft(arg, " "), "<")
	quoted := false
	for i := 0; i < len(arg); i++ {
		switch {
		case quoted && arg[i] == '\\':
			i++
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '>' && !quoted:
			return arg[:i], strings.TrimSpace(arg[i+1:])
		}
	}
	return arg, ""
}

// chunk reads the octets of one BDAT command (RFC 3030, section 2) behind those before them.
func chunk(r *bufio.Reader, data []byte, arg string) (all []byte, last bool, err error) {
	size, end, last := strings.Cut(arg, " ")
	n, err := strconv.ParseUint(size, 10, 31)
	if err != nil || last && !strings.EqualFold(end, "LAST") {
		return nil, false, fmt.Errorf("the argument of BDAT is %q", arg)
	}
	at := len(data)
	data = append(data, make([]byte, n)...)
	_, err = io.ReadFull(r, data[at:])
	return data, last, err
}

// content reads up to the line that holds a single dot.
func content(r *bufio.Reader) ([]byte, error) {
	var data []byte
	for {
		line, err := r.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case string(line) == ".\r\n":
			return data, nil
		}
		data = append(data, bytes.TrimPrefix(line, []byte("."))...)
	}
}
