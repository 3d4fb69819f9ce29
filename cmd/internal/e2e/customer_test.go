package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// listen serves every connection to a port of its own with f, until the test ends.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var serving sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				f(conn)
			})
		}
	})
	return l.Addr().String()
}

// A careless server answers BDAT with 502 when no recipient was accepted, leaves the chunk unread, and then takes it for
// commands. It knows no user whose name begins with "gone".
type careless struct {
	mu    sync.Mutex
	froms []string          // every MAIL that it took
	taken map[string]string // content by recipient
}

func (s *careless) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	fmt.Fprint(conn, "220 careless ESMTP\r\n")
	var to []string
	var content []byte
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, rest, _ := strings.Cut(strings.ToUpper(line), " ")
		reply := "250 2.0.0 Ok"
		switch verb {
		case "EHLO":
			reply = "250-careless\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING"
		case "MAIL":
			s.mu.Lock()
			s.froms = append(s.froms, line)
			s.mu.Unlock()
			to, content = nil, nil
		case "RCPT":
			address := strings.TrimPrefix(strings.Split(line, ">")[0], "RCPT TO:<")
			if strings.HasPrefix(address, "gone") {
				reply = "550 5.1.1 unknown"
			} else {
				to = append(to, address)
			}
		case "BDAT":
			if len(to) == 0 {
				reply = "502 5.5.1 what for"
				break
			}
			size, last, _ := strings.Cut(rest, " ")
			n, _ := strconv.Atoi(size)
			chunk := make([]byte, n)
			for got := 0; got < n; {
				c, err := r.Read(chunk[got:])
				if err != nil {
					return
				}
				got += c
			}
			content = append(content, chunk...)
			if last == "LAST" {
				s.mu.Lock()
				for _, address := range to {
					s.taken[address] = string(content)
				}
				s.mu.Unlock()
				to, content = nil, nil
			}
		case "RSET":
			to, content = nil, nil
		case "QUIT":
			fmt.Fprint(conn, "221 bye\r\n")
			return
		case "DATA", "NOOP":
			reply = "502 5.5.1 no"
		default:
			reply = "500 5.5.2 what"
		}
		if _, err := fmt.Fprint(conn, reply+"\r\n"); err != nil {
			return
		}
	}
}

func TestNothingIsSmuggledIntoACarelessServer(t *testing.T) {
	s := turning(t, restless) // a bounce waits for the next run of Exim's queue
	server := &careless{taken: map[string]string{}}
	s.dialled("acme", "acme.example", listen(t, server.serve))
	smuggled := "MAIL FROM:<evil@x.example>\r\nRCPT TO:<boss@acme.example>\r\nBDAT 4 LAST\r\nevil\r\n"
	var want []string
	before := s.deferred()
	for i := range 10 {
		for _, name := range []string{"gone", "here"} {
			to := fmt.Sprintf("%s%d@acme.example", name, i)
			s.accept("Subject: "+to+"\r\n\r\n"+smuggled, to)
			if name == "here" {
				want = append(want, to)
			}
		}
		s.accept("Subject: to both\r\n\r\n"+smuggled, "gone@acme.example", fmt.Sprintf("also%d@acme.example", i))
		want = append(want, fmt.Sprintf("also%d@acme.example", i))
	}
	s.waitFor("all of it is held", func() bool { return s.deferred() == before+30 })
	s.etrnAt(s.mta.Addr(), "acme.example")
	s.must(postfixtest.Wait("the queue is empty", func() bool { return s.queued() == 0 }))
	server.mu.Lock()
	defer server.mu.Unlock()
	for _, from := range server.froms {
		if !strings.HasPrefix(from, "MAIL FROM:<x@elsewhere.example>") && !strings.HasPrefix(from, "MAIL FROM:<>") {
			t.Errorf("the server took %q", from)
		}
	}
	for _, to := range want {
		if !strings.Contains(server.taken[to], smuggled) {
			t.Errorf("%s got %q", to, server.taken[to])
		}
	}
	if len(server.taken) != len(want) {
		t.Errorf("%d recipients got mail, want %d", len(server.taken), len(want))
	}
	if n := s.mta.Bounced(); n != 20 {
		t.Errorf("%d recipients bounced, want the 20 that do not exist", n)
	}
}

// A slow line is no reason to give up, for Postfix neither: it takes as long as it takes, once.
func TestSlowLineCarriesEverythingOnce(t *testing.T) {
	s := turning(t, mtatest.Config{})
	acme := sink(t)
	line := peer.RunProxy(t, s.ODMR, peer.Line{Rate: 1000, Delay: 100 * time.Millisecond})
	s.atrn("acme", "acme.example")
	s.hold(50, 400, "acme.example")
	began := time.Now()
	caller := s.caller("acme", acme.Addr())
	caller.Server = line.Addr()
	if reply, err := caller.Run(s.soon()); err != nil || !strings.HasPrefix(reply, "250") {
		t.Errorf("ATRN: %s, %v", reply, err)
	}
	t.Logf("50 messages took %v", time.Since(began).Round(time.Second))
	s.settled("acme")
	s.wantEach(50, "acme.example", arrived(acme.Messages()), false)
	if n := s.queued(); n != 0 {
		t.Errorf("%d messages are left", n)
	}
	if list := s.turnsOf("acme"); len(list) != 1 || list[0].Messages != 50 {
		t.Errorf("the turns are %+v", list)
	}
}

// A server that takes the connection and never says a word: the ETRN is answered, the turn is over, and the mail is still there.
func TestServerThatNeverAnswersEndsItsTurn(t *testing.T) {
	s := turning(t, mtatest.Config{})
	silent := listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) })
	s.dialled("acme", "acme.example", silent)
	s.atrn("globex", "globex.example")
	s.hold(2, 400, "acme.example")
	s.hold(2, 400, "globex.example")
	var calling sync.WaitGroup
	calling.Go(func() { _, _ = s.caller("globex", silent).Run(s.soon()) })
	if reply := s.etrnAt(s.mta.Addr(), "acme.example"); !strings.HasPrefix(reply, "458 ") {
		t.Errorf("ETRN: %s", reply)
	}
	calling.Wait()
	s.waitFor("both turns are over", func() bool { return !s.open("acme") && !s.open("globex") })
	globex := sink(t)
	s.fetch("globex", globex.Addr(), 5)
	s.settled("globex")
	s.wantEach(2, "globex.example", arrived(globex.Messages()), false)
	if n := s.queued(); n != 2 {
		t.Errorf("%d messages wait, want acme's 2", n)
	}
}

// Mail that came back to where it was held would go round for ever.
func TestHostThatIsOurselvesIsRefused(t *testing.T) {
	s := turning(t, mtatest.Config{})
	s.dialled("acme", "acme.example", s.mta.Addr())
	s.dialled("globex", "globex.example", s.ODMR)
	s.hold(1, 400, "acme.example")
	s.hold(1, 400, "globex.example")
	for _, domain := range []string{"acme.example", "globex.example"} {
		for _, addr := range []string{s.mta.Addr(), s.ODMR} {
			if reply := s.etrnAt(addr, domain); !strings.HasPrefix(reply, "458 ") {
				t.Errorf("ETRN %s at %s: %s", domain, addr, reply)
			}
		}
	}
	if n := s.queued(); n != 2 {
		t.Errorf("%d messages are in the queue, want 2", n)
	}
}

// An operator, and a backup customer, have mail delivered that only waits for its next try.
func TestBackupCustomerFlushesItsMail(t *testing.T) {
	s := turning(t, mtatest.Config{})
	server, err := postfixtest.NewSink()
	s.must(err)
	t.Cleanup(server.Stop)
	s.account("acme", "backup", "acme.example", "--host", server.Addr(), "--network", "127.0.0.0/8")
	for i, flush := range []func(){
		func() { s.mailbag("flush", "acme") },
		func() { s.etrnAt(s.mta.Addr(), "acme.example") },
		func() { s.etrnAt(s.ODMR, "acme.example") },
	} {
		s.hold(3, 400, "acme.example") // the server is away
		s.must(server.Start())
		flush()
		_, err := server.WaitMessages(3 * (i + 1))
		s.must(err)
		server.Stop()
	}
}
