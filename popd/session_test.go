package popd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/google/go-cmp/cmp"
	"github.com/xdg-go/scram"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/meter/login"
	"mailbag/testdata/certificate"
)

func TestNothingIsDeletedBeforeQuit(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	d.put(body, "ford@dent.example")
	c := d.enter("dent")
	c.say("DELE 1", "+OK")
	c.Close()
	eventually(t, "the session to end", func() bool { return len(d.clients.Guests()) == 0 })
	if n := d.stored("dent", ""); n != 2 {
		t.Errorf("%d messages are left", n)
	}
	c = d.enter("dent")
	c.say("DELE 1", "+OK")
	c.say("QUIT", "+OK")
	if n := d.stored("dent", ""); n != 1 {
		t.Errorf("%d messages are left after QUIT", n)
	}
}

func TestRSETTakesMarksBack(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	d.put(body, "ford@dent.example")
	c := d.enter("dent")
	before := c.say("STAT", "+OK 2 ")
	c.say("DELE 1", "+OK")
	c.say("DELE 2", "+OK")
	c.say("RSET", "+OK")
	if after := c.say("STAT", "+OK"); after != before {
		t.Errorf("STAT says %q, and %q before", after, before)
	}
	c.say("DELE 2", "+OK")
	c.say("QUIT", "+OK")
	c = d.enter("dent")
	c.say("STAT", "+OK 1 ")
}

func TestOneSessionHasAMailbox(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	first := d.enter("dent")
	second := d.dial()
	second.say("USER @dent.example", "+OK")
	second.say("PASS secret word", "-ERR [IN-USE]")
	d.enter("arthur@dent.example") // is another one
	first.say("QUIT", "+OK")
	second.say("USER dent", "+OK")
	second.say("PASS secret word", "+OK")
}

func TestOnlyItsOwnerGetsIntoAMailbox(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.account(meter.Account{Name: "gone", Domains: []string{"gone.example"}, CatchAll: true, Suspended: true})
	d.must(d.ledger.AddAccount(t.Context(), meter.Account{Name: "turn", Mode: meter.ATRN, Domains: []string{"turn.example"},
		Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, verifier))
	for name, want := range map[string]string{
		"solo": "-ERR [AUTH]", "@solo.example": "-ERR [AUTH]", // has no catch-all
		"ford@dent.example": "-ERR [AUTH]", "nobody": "-ERR [AUTH]", "gone": "-ERR [AUTH]", "turn": "-ERR [AUTH]",
		"DENT": "+OK", "Arthur%Dent.Example": "+OK", "han@solo.example": "+OK",
	} {
		c := d.dial()
		c.say("USER "+name, "+OK")
		c.say("PASS secret word", want)
	}
}

// RFC 1939, section 7: the argument of PASS is all that follows the first space.
func TestPasswordMayEndWithASpace(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	spaced, err := login.NewVerifier("secret word ", true)
	d.must(err)
	address, err := meter.ParseAddress("trillian@dent.example")
	d.must(err)
	d.must(d.ledger.AddMailbox(t.Context(), "dent", address, spaced))
	for _, c := range []struct{ user, pass, want string }{
		{"trillian@dent.example", "secret word ", "+OK"}, {"trillian@dent.example", "secret word", "-ERR [AUTH]"},
		{"arthur@dent.example", "secret word ", "-ERR [AUTH]"},
	} {
		client := d.dial()
		client.say("USER "+c.user+" ", "+OK") // a space behind the name is no part of it
		client.say("PASS "+c.pass, c.want)
	}
}

// sasl logs in by a mechanism, with or without an initial response.
func (c *client) sasl(s sasl.Client, withInitial bool) string {
	c.t.Helper()
	mechanism, initial, err := s.Start()
	if err != nil {
		c.t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	if withInitial {
		fmt.Fprintf(c, "AUTH %s %s\r\n", mechanism, encode(initial))
	} else {
		c.say("AUTH "+mechanism, "+ ")
		fmt.Fprint(c, encode(initial), "\r\n")
	}
	for {
		line := c.line()
		text, more := strings.CutPrefix(line, "+ ")
		if !more {
			return line
		}
		challenge, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			c.t.Fatal(err)
		}
		response, err := s.Next(challenge)
		if err != nil {
			c.t.Fatal(err)
		}
		fmt.Fprint(c, encode(response), "\r\n")
	}
}

// scramClient is SCRAM-SHA-256 as a client speaks it.
type scramClient struct{ talk *scram.ClientConversation }

func newSCRAM(t testing.TB, name, password string) *scramClient {
	client, err := scram.SHA256.NewClient(name, password, "")
	if err != nil {
		t.Fatal(err)
	}
	return &scramClient{client.NewConversation()}
}

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.talk.Step("")
	return "SCRAM-SHA-256", []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	response, err := s.talk.Step(string(challenge))
	return []byte(response), err
}

func TestLogInBySASL(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	for _, initial := range []bool{true, false} {
		for _, s := range []sasl.Client{
			sasl.NewPlainClient("", "arthur@dent.example", "secret word"),
			newSCRAM(t, "arthur@dent.example", "secret word"),
		} {
			c := d.dial()
			if reply := c.sasl(s, initial); !strings.HasPrefix(reply, "+OK") {
				t.Errorf("%T: %s", s, reply)
			}
			c.say("STAT", "+OK")
			c.say("QUIT", "+OK")
			c.closed()
		}
		c := d.dial()
		if reply := c.sasl(sasl.NewPlainClient("", "dent", "wrong"), initial); !strings.HasPrefix(reply, "-ERR [AUTH]") {
			t.Errorf("a wrong password: %s", reply)
		}
	}
	// A response may be longer than a command.
	c := d.dial()
	c.say("AUTH PLAIN", "+ ")
	c.say(base64.StdEncoding.EncodeToString([]byte("\x00"+strings.Repeat("a", 1000)+"\x00x")), "-ERR [AUTH]")
	c.say("AUTH", "+OK")
	if diff := cmp.Diff([]string{"SCRAM-SHA-256", "PLAIN", "LOGIN"}, c.lines()); diff != "" {
		t.Error(diff)
	}
}

func withTLS(t testing.TB) func(*Config) {
	config := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mx.example").Pair}}
	return func(cfg *Config) { cfg.TLS = func() *tls.Config { return config } }
}

// A remote listener's clients come from another machine, as far as the server can see.
type remote struct{ net.Listener }

type remoteConn struct{ net.Conn }

func (l remote) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return remoteConn{c}, err
}

func (remoteConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1} }

func TestPasswordIsNotTakenInTheClear(t *testing.T) {
	t.Parallel()
	d := openDesk(t, withTLS(t))
	d.pop3 = d.serve("tcp", "127.0.0.1:0", func(l net.Listener) error { return d.ServePOP3(remote{l}) })
	c := d.dial()
	c.say("CAPA", "+OK")
	offered := strings.Join(c.lines(), "\n")
	if strings.Contains(offered, "\nUSER\n") || strings.Contains(offered, "PLAIN") || !strings.Contains(offered, "\nSTLS\n") {
		t.Errorf("offered is\n%s", offered)
	}
	c.say("USER dent", "-ERR")
	c.say("AUTH PLAIN AGRlbnQAc2VjcmV0IHdvcmQ=", "-ERR")
	c.say("STLS", "+OK")
	c = d.talk(tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}))
	c.say("CAPA", "+OK")
	offered = strings.Join(c.lines(), "\n")
	if !strings.Contains(offered, "\nUSER\n") || !strings.Contains(offered, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN") || strings.Contains(offered, "STLS") {
		t.Errorf("under TLS offered is\n%s", offered)
	}
	c.say("USER dent", "+OK")
	c.say("PASS secret word", "+OK")
	c.say("STLS", "-ERR")
	c.say("QUIT", "+OK")
	c.closed()
	eventually(t, "the session's record", func() bool {
		list, err := d.ledger.PopSessions(t.Context(), "dent", 1)
		return err == nil && len(list) == 1 && list[0].TLS == "TLS 1.3" && list[0].Client == "192.0.2.1"
	})
}

func TestNothingMayBeSentBehindSTLS(t *testing.T) {
	t.Parallel()
	d := openDesk(t, withTLS(t))
	c := d.dial()
	c.say("STLS\r\nUSER dent", "-ERR")
	c.closed()
}

func TestTLSFromTheStart(t *testing.T) {
	t.Parallel()
	d := openDesk(t, withTLS(t))
	conn, err := tls.Dial("tcp", d.serve("tcp", "127.0.0.1:0", d.ServePOP3S), &tls.Config{InsecureSkipVerify: true})
	d.must(err)
	c := d.talk(conn)
	c.want("+OK")
	c.say("USER dent", "+OK")
	c.say("PASS secret word", "+OK")
	c.say("QUIT", "+OK")
}

func TestSessionIsRecorded(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	d.put(body, "ford@dent.example")
	c := d.enter("dent")
	size := len(c.fetch(1))
	c.say("DELE 1", "+OK")
	c.say("QUIT", "+OK")
	c = d.enter("arthur@dent.example")
	c.Close()
	var got []meter.PopSession
	eventually(t, "two records", func() bool {
		var err error
		got, err = d.ledger.PopSessions(t.Context(), "dent", 10)
		d.must(err)
		return len(got) == 2
	})
	dots := 1
	want := []meter.PopSession{
		{Account: "dent", Mailbox: "arthur@dent.example", Client: "127.0.0.1", Outcome: "the client went away without QUIT"},
		{Account: "dent", Client: "127.0.0.1", Fetched: 1, Bytes: int64(size + dots), Deleted: 1, Outcome: "done"},
	}
	for i := range got {
		if got[i].Began.IsZero() || got[i].Ended.Before(got[i].Began) {
			t.Errorf("it lasted from %v to %v", got[i].Began, got[i].Ended)
		}
		got[i].Began, got[i].Ended = time.Time{}, time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCommandsMayComeAtOnce(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	const n = 40
	for range n {
		d.put(body, "ford@dent.example")
	}
	c := d.dial()
	var all strings.Builder
	all.WriteString("USER dent\r\nPASS secret word\r\nSTAT\r\n")
	for i := range n {
		fmt.Fprintf(&all, "RETR %d\r\nDELE %d\r\n", i+1, i+1)
	}
	all.WriteString("QUIT\r\n")
	go fmt.Fprint(c, all.String())
	c.want("+OK")
	c.want("+OK")
	c.want(fmt.Sprint("+OK ", n, " "))
	for range n {
		c.want("+OK")
		c.lines()
		c.want("+OK")
	}
	c.want("+OK")
	c.closed()
	if left := d.stored("dent", ""); left != 0 {
		t.Errorf("%d are left", left)
	}
}

func TestMailboxThatChangesUnderASession(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	for i := range 3 {
		d.put(fmt.Sprint(i, "\r\n"), "ford@dent.example")
	}
	c := d.enter("dent")
	path := d.store.Maildir("dent", "").Path()
	files, err := filepath.Glob(filepath.Join(path, "new", "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	d.must(os.Remove(files[1]))
	d.must(os.Rename(files[2], filepath.Join(path, "cur", filepath.Base(files[2])+":2,S")))
	d.put("new\r\n", "ford@dent.example")
	c.fetch(1)
	c.say("RETR 2", "-ERR")
	c.fetch(3)
	c.say("RETR 4", "-ERR")
	c.say("DELE 2", "+OK")
	c.say("DELE 3", "+OK")
	c.say("QUIT", "+OK")
	if n := d.stored("dent", ""); n != 2 {
		t.Errorf("%d are left, want the first and the new one", n)
	}
}

func TestMailboxThatIsBeingMadeOpens(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.must(os.MkdirAll(filepath.Join(d.store.Maildir("dent", "").Path(), "new"), 0o700))
	c := d.enter("dent")
	c.say("STAT", "+OK 0 0")
	d.put(body, "ford@dent.example")
}

func TestMessageThatCannotBeReadDoesNotHideOthers(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	path := d.store.Maildir("dent", "").Path()
	d.must(os.Symlink("/etc/hostname", filepath.Join(path, "new", "1.link,S=1,W=1")))
	d.must(os.Mkdir(filepath.Join(path, "new", "2.directory,S=1,W=1"), 0o700))
	c := d.enter("dent")
	c.say("STAT", "+OK 2 ")
	c.say("RETR 1", "-ERR [SYS/TEMP]")
	c.fetch(2)
}

// However many messages another program takes away, the rest can be fetched, and what was marked is deleted.
func TestVanishedMessagesAreNoMistakesOfTheClient(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(c *Config) { c.Bounds.Mistakes = 1 })
	for range 5 {
		d.put(body, "ford@dent.example")
	}
	files, err := filepath.Glob(filepath.Join(d.store.Maildir("dent", "").Path(), "new", "*"))
	d.must(err)
	c := d.enter("dent")
	c.say("DELE 1", "+OK")
	slices.Sort(files)
	for i, file := range files[1:4] {
		d.must(os.Remove(file))
		c.say(fmt.Sprint("RETR ", i+2), "-ERR")
		c.say(fmt.Sprint("TOP ", i+2, " 0"), "-ERR")
	}
	c.fetch(5)
	c.say("QUIT", "+OK")
	if n := d.stored("dent", ""); n != 1 {
		t.Errorf("%d messages are left", n)
	}
}

// A read may give less than it was asked for, and not be the last: before a place on the disk that cannot be read.
func TestMessageEndsWhereTheFileEnds(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	// Of such a socket each read gives what one write gave.
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 0)
	d.must(err)
	defer syscall.Close(ends[0])
	for _, piece := range []string{"Subject: x\n", "\nbody", "\n"} {
		_, err := syscall.Write(ends[1], []byte(piece))
		d.must(err)
	}
	d.must(syscall.Close(ends[1]))
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	s := &session{server: d.Server, conn: &conn{Conn: ours, server: d.Server}}
	d.must(s.content(ends[0], nil))
	if got, want := string(*s.conn.out), "Subject: x\r\n\r\nbody\r\n.\r\n"; got != want {
		t.Errorf("sent is %q, want %q", got, want)
	}
}

func TestLimitsOfAClient(t *testing.T) {
	t.Parallel()
	short := func(b Bounds) func(*Config) { return func(cfg *Config) { cfg.Bounds = b } }
	long := strings.Repeat("x", commandLimit)
	for name, try := range map[string]struct {
		bounds Bounds
		do     func(d *desk, c *client)
	}{
		"a line that is too long": {Bounds{}, func(_ *desk, c *client) {
			c.say(long, "-ERR")
		}},
		"a line without end": {Bounds{}, func(_ *desk, c *client) {
			fmt.Fprint(c, long)
			c.want("-ERR")
		}},
		"a response that is too long": {Bounds{}, func(_ *desk, c *client) {
			c.say("AUTH PLAIN", "+ ")
			go fmt.Fprint(c, strings.Repeat("x", responseLimit))
			c.want("-ERR")
		}},
		"too many mistakes": {Bounds{Mistakes: 3}, func(_ *desk, c *client) {
			for range 4 {
				c.say("X", "-ERR")
			}
			c.want("-ERR")
		}},
		"too much before the log-in": {Bounds{Commands: 3}, func(_ *desk, c *client) {
			for range 3 {
				c.say("CAPA", "+OK")
				c.lines()
			}
			c.say("CAPA", "-ERR The connection is closed: the client said too much")
		}},
		"nobody logs in": {Bounds{Login: time.Second}, func(*desk, *client) {}},
		"a command is not finished": {Bounds{Command: time.Second}, func(_ *desk, c *client) {
			fmt.Fprint(c, "CAP")
		}},
		"octets that come one by one": {Bounds{Command: time.Second}, func(_ *desk, c *client) {
			for {
				if _, err := c.Write([]byte{'x'}); err != nil {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
		}},
		"silence": {Bounds{Idle: time.Second}, func(*desk, *client) {}}, // is answered with the same
		"binary": {Bounds{}, func(_ *desk, c *client) {
			junk := make([]byte, 100_000)
			rand.Read(junk)
			go c.Write(bytes.ReplaceAll(junk, []byte{'\n'}, []byte{'x'}))
			c.want("-ERR")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, short(try.bounds))
			c := d.dial()
			try.do(d, c)
			c.closed()
			eventually(t, "the session to end", func() bool { return len(d.clients.Guests()) == 0 })
		})
	}
}

// What is written before the log-in has to be taken before the log-in's end, however patient Write is.
func TestStrangerWhoReadsNothingIsLeft(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) { cfg.Bounds = Bounds{Login: 50 * time.Millisecond, Write: time.Hour} })
	ours, theirs := net.Pipe() // nothing is written that is not read
	defer theirs.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.visitor(ours, door.Client{}, false).Serve()
	}()
	<-ended
	eventually(t, "the session to end", func() bool { return len(d.clients.Guests()) == 0 })
}

func TestCommandsAreNotCountedAfterTheLogIn(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) { cfg.Bounds = Bounds{Commands: 2} })
	c := d.enter("dent")
	for range 10 {
		c.say("NOOP", "+OK")
	}
}

func TestClientThatStopsReadingIsLeft(t *testing.T) {
	t.Parallel()
	d := openDesk(t, func(cfg *Config) { cfg.Bounds = Bounds{Write: time.Second} })
	d.put("small\r\n", "ford@dent.example")
	files, err := filepath.Glob(filepath.Join(d.store.Maildir("dent", "").Path(), "new", "*"))
	d.must(err)
	d.must(os.WriteFile(files[0], bytes.Repeat([]byte("a line of a large message\n"), 1<<20), 0o600))
	c := d.enter("dent")
	fmt.Fprint(c, "DELE 1\r\nRSET\r\nRETR 1\r\n")
	eventually(t, "the session to end", func() bool { return len(d.clients.Guests()) == 0 })
	var got []meter.PopSession
	eventually(t, "its record", func() bool {
		got, _ = d.ledger.PopSessions(t.Context(), "dent", 1)
		return len(got) == 1
	})
	if got[0].Outcome != errStalled.Error() {
		t.Errorf("it ended because %s", got[0].Outcome)
	}
	if n := d.stored("dent", ""); n != 1 {
		t.Errorf("%d messages are left", n)
	}
}

func TestGracefulStopLetsSessionsFinish(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	d.put(body, "arthur@dent.example")
	busy, silent, stranger := d.enter("dent"), d.enter("arthur@dent.example"), d.dial()
	silent.say("DELE 1", "+OK")
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- d.Shutdown(ctx)
	}()
	eventually(t, "nobody new gets in", func() bool {
		conn, err := net.Dial("tcp", d.pop3)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	busy.fetch(1)
	busy.say("DELE 1", "+OK")
	busy.say("QUIT", "+OK")
	silent.want("-ERR [SYS/TEMP]")
	stranger.want("-ERR [SYS/TEMP]")
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if a, b := d.stored("dent", ""), d.stored("dent", "arthur@dent.example"); a != 0 || b != 1 {
		t.Errorf("%d and %d are left, want what was deleted with QUIT to be gone", a, b)
	}
}

func TestServerThatIsStoppedServesNobody(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.must(d.Shutdown(t.Context()))
	for socket, serve := range map[string]func(net.Listener) error{"pop3": d.ServePOP3, "pop3s": d.ServePOP3S, "deliver": d.ServeDeliveries} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		d.must(err)
		served := make(chan error, 1)
		go func() { served <- serve(l) }()
		select {
		case err := <-served:
			d.must(err)
		case <-time.After(patience):
			t.Fatalf("%s is served after Shutdown", socket)
		}
		if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
			conn.Close()
			t.Errorf("%s is still open", socket)
		}
	}
}

func TestStopThatLosesPatienceDeletesNothing(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "ford@dent.example")
	c := d.enter("dent")
	c.say("DELE 1", "+OK")
	half := d.envelope("ford@dent.example")
	half.say("DATA", "354")
	fmt.Fprint(half, "half a mess")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if n := d.stored("dent", ""); n != 1 {
		t.Errorf("%d are left", n)
	}
}

func FuzzExcerpt(f *testing.F) {
	f.Add([]byte("a: b\n\nbody\nmore\n"), 1, 3)
	f.Add([]byte("a: b\r\n\r\nbody"), 0, 1)
	f.Fuzz(func(t *testing.T, message []byte, lines, piece int) {
		lines, piece = max(0, lines%100), max(1, piece)
		e := &excerpt{lines: lines}
		var got []byte
		for rest, more := message, true; more && len(rest) > 0; {
			n := min(piece, len(rest))
			var taken []byte
			taken, more = e.take(rest[:n], len(rest) > n)
			got = append(got, taken...)
			rest = rest[n:]
		}
		// The same in one look: lines up to the first empty one, and so many more.
		var want []byte
		body := false
		for line := range bytes.SplitAfterSeq(message, []byte{'\n'}) {
			if body && lines == 0 {
				break
			}
			want = append(want, line...)
			if body {
				lines--
			} else if len(bytes.Trim(line, "\r\n")) == 0 && bytes.HasSuffix(line, []byte{'\n'}) {
				body = true
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("TOP of %q is %q, want %q", message, got, want)
		}
	})
}
