package turn

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A loose server offers CHUNKING, takes the empty recipient, and reads what is behind a refused BDAT as commands.
type loose struct {
	refuses atomic.Bool // full@hooli.example

	mu  sync.Mutex
	got map[string]int // by last line
}

func runLoose(t *testing.T) (s *loose, addr string) {
	s = &loose{got: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				s.serve(conn)
				conn.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return s, l.Addr().String()
}

func (s *loose) take(content []byte) {
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\r\n"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[string(lines[len(lines)-1])]++
}

func (s *loose) serve(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 1<<20)
	say := func(reply string) { fmt.Fprintf(conn, "%s\r\n", reply) } // what it cannot write it would not say
	say("220 loose.example")
	var to int
	var content []byte
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-loose.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250 CHUNKING")
		case "MAIL":
			to, content = 0, nil
			say("250 2.1.0 fine")
		case "RCPT":
			if s.refuses.Load() && strings.Contains(rest, "<full@") {
				// What is behind it is there by now.
				conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				in.Peek(1 << 20)
				conn.SetReadDeadline(time.Time{})
				say("452 4.2.2 full")
				continue
			}
			to++
			say("250 2.1.5 fine")
		case "BDAT":
			if to == 0 {
				say("503 5.5.1 no recipient")
				continue
			}
			var n int
			fmt.Sscan(rest, &n)
			chunk := make([]byte, n)
			if _, err := io.ReadFull(in, chunk); err != nil {
				return
			}
			if content = append(content, chunk...); strings.HasSuffix(rest, "LAST") {
				s.take(content)
				to = 0
			}
			say("250 2.0.0 fine")
		case "DATA":
			if to == 0 {
				say("503 5.5.1 no recipient")
				continue
			}
			say("354 go on")
			for content = nil; ; content = append(content, line...) {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
			}
			s.take(content)
			to = 0
			say("250 2.0.0 fine")
		case "RSET":
			to = 0
			say("250 2.0.0 fine")
		case "QUIT":
			say("221 2.0.0 bye")
			return
		default:
			say("500 5.5.2 what")
		}
	}
}

// Each line of it has a good reply, as the commands for the messages behind it have.
func TestContentThatAServerRunsAsCommandsConfirmsNoOtherMessage(t *testing.T) {
	t.Parallel()
	behindRefused(t, strings.Repeat("NOOP\r\n", 12))
}

func TestMessagesBehindContentThatAServerRunsAsCommandsArriveOnce(t *testing.T) {
	t.Parallel()
	behindRefused(t, hello+strings.Repeat("NOOP\r\n", 12))
}

// behindRefused is a turn in which a message with this content, whose recipient was good before, is refused with others
// behind it on the line.
func behindRefused(t *testing.T, content string) {
	h := newHouse(t, func(c *plan) { c.IdleWait = time.Minute })
	server, addr := runLoose(t)
	h.hold(true, hello+"first\r\n", "a@hooli.example")
	h.hold(true, hello+"first for full\r\n", "full@hooli.example")
	if err := h.etrn(addr); err != nil {
		t.Fatal(err)
	}
	h.until("the server knows both", func() bool { return h.held() == 0 })
	server.refuses.Store(true)
	h.hold(true, content, "full@hooli.example")
	h.hold(true, hello+"second\r\n", "a@hooli.example")
	h.hold(true, hello+"third\r\n", "a@hooli.example")
	h.until("the server has the others", func() bool { return h.held() == 1 })
	h.bound(func(b *Bounds) { b.IdleWait = 50 * time.Millisecond })
	h.until("the turn is over", func() bool { return !h.turns.Open("hooli") && h.idle() })
	for _, line := range []string{"first", "first for full", "second", "third"} {
		if n := server.got[line]; n != 1 {
			t.Errorf("%q arrived %d times", line, n)
		}
	}
	if len(server.got) != 4 || h.held() != 1 || h.waiting("hooli") != 1 || len(h.returned) != 0 {
		t.Errorf("arrived: %v; %d are held, %d wait by the index, %v were returned", server.got, h.held(), h.waiting("hooli"), h.returned)
	}
	if r := h.record(); r.Outcome != "done" || r.Messages != 4 || len(r.Suspects) != 0 {
		t.Errorf("recorded %+v", r)
	}
}
