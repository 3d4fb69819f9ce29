package postfixtest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
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
	TLS        string   // version, such as "TLS 1.3"; empty: it came in the clear
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
	Certificate *tls.Certificate               // with which STARTTLS is offered; nil: it is not
	OnRecipient func(address string) string    // reply to RCPT; nil or "": 250. 2xx accepts, 421 hangs up
	OnMessage   func(m Message) (reply string) // reply to the final dot; nil or "": 250. Only 2xx is recorded. May block

	addr string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
	serving  *sync.WaitGroup
	messages []Message
	arrived  chan struct{} // closed and replaced at every message
}

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
			s.mu.Unlock()
			serving.Go(func() {
				s.serve(conn)
				_ = conn.Close()
				s.mu.Lock()
				delete(s.open, conn)
				s.mu.Unlock()
			})
		}
	})
	return nil
}

// Stop closes the port and every connection, and waits for them. Start may follow. Stopping twice does nothing.
func (s *Sink) Stop() {
	s.mu.Lock()
	l, serving := s.listener, s.serving
	if l == nil {
		s.mu.Unlock()
		return
	}
	s.listener = nil
	_ = l.Close()
	for conn := range s.open {
		_ = conn.Close()
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
func (s *Sink) WaitMessages(within time.Duration, n int) ([]Message, error) {
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

// serve speaks SMTP with one client.
func (s *Sink) serve(conn net.Conn) {
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(reply string) bool {
		_, _ = w.WriteString(reply + "\r\n")
		if r.Buffered() > 0 { // answer a pipelined group in one go
			return true
		}
		return w.Flush() == nil
	}
	if !say("220 sink.example ESMTP") {
		return
	}
	var m Message
	version := "" // of TLS
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		reply := "250 2.0.0 Ok"
		switch strings.ToUpper(verb) {
		case "EHLO":
			m = Message{Helo: rest}
			reply = s.ehlo(version != "")
		case "HELO":
			m = Message{Helo: rest}
			reply = "250 sink.example"
		case "STARTTLS":
			if s.Certificate == nil || version != "" {
				reply = "502 5.5.1 not now"
				break
			}
			_, _ = w.WriteString("220 2.0.0 go ahead\r\n")
			if w.Flush() != nil {
				return
			}
			secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*s.Certificate}})
			if secure.Handshake() != nil {
				return
			}
			conn, version = secure, tls.VersionName(secure.ConnectionState().Version)
			r.Reset(conn) // RFC 3207, section 4.2: nothing that was sent in the clear counts
			w.Reset(conn)
			m = Message{}
			continue
		case "MAIL":
			m = Message{Helo: m.Helo, TLS: version}
			m.From, m.FromParams = path(rest)
		case "RCPT":
			to, _ := path(rest)
			if s.OnRecipient != nil {
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
			reply = s.take(m)
			m = Message{Helo: m.Helo}
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
				reply = s.take(m)
				m = Message{Helo: m.Helo}
			}
		case "RSET":
			m = Message{Helo: m.Helo}
		case "NOOP":
		case "QUIT":
			_, _ = w.WriteString("221 2.0.0 Bye\r\n")
			_ = w.Flush()
			return
		default:
			reply = "502 5.5.2 command not implemented"
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

func (s *Sink) ehlo(encrypted bool) string {
	ext := s.Extensions
	if ext == nil {
		ext = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES"}
	}
	lines := append([]string{"sink.example"}, ext...)
	if s.Certificate != nil && !encrypted {
		lines = append(lines, "STARTTLS")
	}
	last := len(lines) - 1
	for i := range lines {
		lines[i] = map[bool]string{true: "250 ", false: "250-"}[i == last] + lines[i]
	}
	return strings.Join(lines, "\r\n")
}

// take asks what to answer, and records what is accepted.
func (s *Sink) take(m Message) string {
	reply := ""
	if s.OnMessage != nil {
		reply = s.OnMessage(m)
	}
	if reply == "" {
		reply = "250 2.0.0 Ok"
	}
	if strings.HasPrefix(reply, "2") {
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
