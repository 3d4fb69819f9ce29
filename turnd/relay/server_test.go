package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/testdata/certificate"
)

// A server is a customer's mail server that does what a test wants.
type server struct {
	extensions []string
	greeting   string                                 // "": 220 customer.example
	mail       func(path string) string               // "": 250
	rcpt       func(path string) string               // "": 250
	data       func(content []byte) string            // "": 250
	chunk      func(size int, last bool) string       // reply instead of taking the chunk; "": take it
	unread     bool                                   // a refused chunk is not consumed but taken for commands
	anyRcpt    bool                                   // the empty path is a recipient, so that a probe tells nothing
	starttls   *tls.Config                            // nil: STARTTLS is answered and nothing follows
	certified  bool                                   // the first reply under TLS is a hang-up
	swallows   bool                                   // of the commands that come together only the first is seen
	noData     bool                                   // DATA is not known
	hangUp     bool                                   // in place of the reply to a content
	reset      func() string                          // "": 250
	pause      func(command string)                   // before each command, when what was said before has left
	before     func(n int, command string) (cut bool) // of the n-th command
	content    func()                                 // before content is read behind DATA

	mu       sync.Mutex
	messages []received
	commands []string
}

type received struct {
	from, content string
	to            []string
}

var allExtensions = []string{"PIPELINING", "CHUNKING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN"}

// dial connects a client to the server over loopback. The server ends with the test.
func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.serve(conn)
		conn.Close()
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		l.Close()
		<-done
	})
	return conn
}

func (s *server) serve(conn net.Conn) {
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(reply string) bool {
		out.WriteString(strings.ReplaceAll(reply, "\n", "\r\n") + "\r\n")
		return in.Buffered() > 0 || out.Flush() == nil
	}
	greeting := s.greeting
	if greeting == "" {
		greeting = "220 customer.example ESMTP"
	}
	if !say(greeting) {
		return
	}
	ask := func(hook func(string) string, with string) string {
		if hook != nil {
			if reply := hook(with); reply != "" {
				return reply
			}
		}
		return "250 2.0.0 fine"
	}
	var m received
	var open, chunked bool
	var broken bool // a chunk failed: RFC 3030, section 2, lets nothing but RSET help
	reset := func() { m, open, chunked, broken = received{}, false, false, false }
	accept := func() string {
		reply := "250 2.0.0 taken"
		if s.data != nil {
			if r := s.data([]byte(m.content)); r != "" {
				reply = r
			}
		}
		if s.hangUp {
			return ""
		}
		if reply[0] == '2' {
			s.mu.Lock()
			s.messages = append(s.messages, m)
			s.mu.Unlock()
		}
		reset()
		return reply
	}
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.commands = append(s.commands, line)
		s.mu.Unlock()
		if s.pause != nil {
			out.Flush()
			s.pause(line)
		}
		if s.before != nil && s.before(n, line) {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		var reply string
		switch strings.ToUpper(verb) {
		case "EHLO":
			reset() // RFC 5321, section 4.1.4
			reply = "250-customer.example greets you"
			for _, e := range s.extensions {
				reply += "\n250-" + e
			}
			reply = reply[:strings.LastIndex(reply, "250-")] + "250 " + reply[strings.LastIndex(reply, "250-")+4:]
		case "HELO":
			reply = "250 customer.example"
		case "MAIL":
			if open {
				reply = "503 nested MAIL"
				break
			}
			if reply = ask(s.mail, rest[len("FROM:"):]); reply[0] == '2' {
				m, open = received{from: rest[len("FROM:"):]}, true
			}
		case "RCPT":
			if !open {
				reply = "503 no MAIL"
				break
			}
			if rest == "TO:<>" && !s.anyRcpt {
				reply = "501 5.1.3 an empty path"
			} else if reply = ask(s.rcpt, rest[len("TO:"):]); reply[0] == '2' {
				m.to = append(m.to, rest[len("TO:"):])
			}
		case "DATA":
			if s.noData {
				reply = "502 5.5.1 no DATA"
				break
			}
			if len(m.to) == 0 || chunked {
				reply = "554 no valid recipients"
				break
			}
			say("354 go on")
			out.Flush()
			if s.content != nil {
				s.content()
			}
			var content bytes.Buffer
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				content.WriteString(strings.TrimPrefix(line, "."))
			}
			m.content = content.String()
			reply = accept()
		case "BDAT":
			words := strings.Fields(rest)
			size, _ := strconv.Atoi(words[0])
			last := len(words) > 1
			refusal := ""
			if s.chunk != nil {
				refusal = s.chunk(size, last)
			}
			if refusal == "" && (len(m.to) == 0 || broken) {
				refusal = "503 no recipients"
			}
			if refusal != "" {
				if !s.unread {
					io.CopyN(io.Discard, in, int64(size))
				}
				reply, broken = refusal, true
				break
			}
			chunk := make([]byte, size)
			if _, err := io.ReadFull(in, chunk); err != nil {
				return
			}
			m.content += string(chunk)
			chunked = true
			reply = "250 2.0.0 chunk"
			if last {
				reply = accept()
			}
		case "STARTTLS":
			say("220 2.0.0 go on")
			out.Flush()
			if s.starttls == nil {
				return
			}
			secured := tls.Server(conn, s.starttls)
			conn, in, out = secured, bufio.NewReader(secured), bufio.NewWriter(secured)
			reset()
			if s.certified {
				in.ReadString('\n')
				return
			}
			continue
		case "RSET":
			reset()
			reply = "250 2.0.0 forgotten"
			if s.reset != nil {
				if r := s.reset(); r != "" {
					reply = r
				}
			}
		case "NOOP":
			reply = "250 2.0.0 nothing done"
		case "QUIT":
			say("221 2.0.0 bye")
			out.Flush()
			return
		default:
			reply = fmt.Sprintf("500 5.5.2 what is %.20q", verb)
		}
		if s.swallows {
			in.Discard(in.Buffered())
		}
		if reply == "" || !say(reply) {
			return
		}
		if strings.HasPrefix(reply, "421") { // RFC 5321, section 3.8; what still comes is read, not reset
			out.Flush()
			if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				io.Copy(io.Discard, in)
			}
			return
		}
	}
}

var opportunistic = &tls.Config{InsecureSkipVerify: true}

// tlsFailures are servers that fail at TLS when the handshake is over for the client.
func tlsFailures(t *testing.T) map[string]*server {
	pair := certificate.New(t, "customer.example").Pair
	offers := append([]string{"STARTTLS"}, allExtensions...)
	return map[string]*server{
		"wants a certificate":         {extensions: offers, starttls: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}},
		"closes at the second EHLO":   {extensions: offers, starttls: &tls.Config{Certificates: []tls.Certificate{pair}}, certified: true},
		"breaks off in the handshake": {extensions: offers},
	}
}

// reversedTLS is a connection under TLS that a server answers, and what it was sent, by the pieces in which it came.
func reversedTLS(t *testing.T, s *server) (ours net.Conn, records func() []string) {
	pair := certificate.New(t, "mx.provider.example").Pair
	outer, inner := net.Pipe()
	ours = tls.Server(outer, &tls.Config{Certificates: []tls.Certificate{pair}})
	theirs := &recording{Conn: tls.Client(inner, &tls.Config{InsecureSkipVerify: true})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(theirs)
		theirs.Close()
	}()
	if err := ours.(*tls.Conn).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ours, func() []string {
		<-done
		return theirs.pieces
	}
}

// A recording keeps what was read, by reads: of a TLS connection, each is one record.
type recording struct {
	net.Conn
	pieces []string
}

func (r *recording) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.pieces = append(r.pieces, string(p[:n]))
	}
	return n, err
}

func (s *server) taken() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.messages...)
}

func (s *server) said(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.commands {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

// scripted is a connection to a server that says all it has to say and hangs up.
type scripted struct {
	net.Conn // nil: nothing else is used
	in       *bytes.Reader
}

func newScripted(script []byte) *scripted { return &scripted{in: bytes.NewReader(script)} }

func (s *scripted) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { return nil }
func (s *scripted) SetDeadline(time.Time) error { return nil }
