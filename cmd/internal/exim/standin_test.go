package exim

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mailbag/cmd/internal/mta"
	eximtest "mailbag/testdata/exim"
	postfixtest "mailbag/testdata/postfix"
)

// A policyd answers in the place of mailbag-policyd, by script, and remembers what it was asked.
type policyd struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	answer func(q question) string // empty: no answer, and the connection is closed
	asked  []question
}

// A question is one request, by its attributes.
type question map[string]string

func (q question) String() string { return fmt.Sprintf("%q", map[string]string(q)) }

func dunno(question) string { return "action=DUNNO\n\n" }

func runPolicyd(t *testing.T, x *eximtest.Instance) *policyd {
	t.Helper()
	p := &policyd{answer: dunno}
	p.listen(t, x)
	t.Cleanup(p.stop)
	return p
}

func (p *policyd) listen(t *testing.T, x *eximtest.Instance) {
	t.Helper()
	path := x.Root(policySocket)
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.listener = l
	p.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.serving.Go(func() { p.serve(conn) })
		}
	})
}

func (p *policyd) stop() {
	p.listener.Close()
	p.serving.Wait()
}

func (p *policyd) serve(conn net.Conn) {
	defer conn.Close()
	q := question{}
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			q["cut"] = line
			break
		}
		if line == "\n" {
			break
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := q[name]; twice {
			q["twice"] = name
		}
		q[name] = value
	}
	p.mu.Lock()
	p.asked = append(p.asked, q)
	answer := p.answer
	p.mu.Unlock()
	fmt.Fprint(conn, answer(q))
}

// answers has the stand-in answer otherwise from now on, and forget what it was asked.
func (p *policyd) answers(answer func(question) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.asked = answer, nil
}

// questions are those of a state, in their order.
func (p *policyd) questions(state string) []question {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.asked), func(q question) bool { return q["protocol_state"] != state })
}

// ways are the accounts of the tests.
var ways = map[string]string{
	"turn.example":   "transport=turn queue=mailbag account=turn verify=no",
	"second.example": "transport=turn queue=mailbag account=second verify=no",
	"pop.example":    "transport=pop queue=\"\" account=pop verify=no",
	"none.example":   "transport=none queue=\"\" account=none verify=no",
	"mx.example":     "transport=mx queue=\"\" account=mx verify=no tls=opportunistic",
}

// wired is an Exim that setup has wired, with these ways besides, and its policyd.
func wired(t *testing.T, more map[string]string, configure ...func(*eximtest.Instance)) (*eximtest.Instance, *policyd) {
	t.Helper()
	x := eximtest.Prepare(t, eximtest.Config{Local: []string{"local.example"}})
	for _, f := range configure {
		f(x)
	}
	if err := os.MkdirAll(x.Root("/run/mailbag/turn"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeRoutes(t, x, more)
	p := runPolicyd(t, x)
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	done(t, x, verb{Do: "setup", Needs: mta.Needs{}})
	if err := x.Reload(); err != nil { // waits until it is in force
		t.Fatal(err)
	}
	dial(t, x, "").say("QUIT", "221") // the daemon has begun its queue run before it takes a connection
	idle(t, x)
	return x, p
}

// idle waits until Exim has nothing under way: what it delivers goes on when the message is taken, and is passed over by a queue run.
func idle(t *testing.T, x *eximtest.Instance) {
	t.Helper()
	if err := postfixtest.Wait("Exim to have nothing to do", func() bool { return !x.Busy() }); err != nil {
		t.Error(err)
	}
}

// writeRoutes writes the table.
func writeRoutes(t *testing.T, x *eximtest.Instance, more map[string]string) {
	t.Helper()
	var in strings.Builder
	for _, all := range []map[string]string{ways, more} {
		for domain, way := range all {
			fmt.Fprintf(&in, "+%d,%d:%s->%s\n", len(domain), len(way), domain, way)
		}
	}
	path := x.Root(tablesDirectory + "/routes.cdb")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cdb", "-c", "-t", path+".new", path)
	cmd.Stdin = strings.NewReader(in.String() + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cdb: %v: %s", err, out)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A talk is one connection to an Exim.
type talk struct {
	t *testing.T
	*postfixtest.Client
}

func dial(t *testing.T, x *eximtest.Instance, source string) talk {
	t.Helper()
	c, err := postfixtest.Dial(x.Addr(), source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := talk{t, c}
	s.say("EHLO client.example", "250")
	return s
}

// say wants a reply that begins so.
func (s talk) say(command, want string) string {
	s.t.Helper()
	reply, err := s.Say(command)
	if err != nil || !strings.HasPrefix(reply, want) {
		s.t.Errorf("%s: %q, %v\nwant %s", command, reply, err, want)
	}
	return reply
}

// mail begins a message to one or more.
func (s talk) mail(to ...string) {
	s.t.Helper()
	s.say("MAIL FROM:<sender@elsewhere.example>", "250")
	for _, r := range to {
		s.say("RCPT TO:<"+r+">", "250")
	}
}

const content = "Message-ID: <1@elsewhere.example>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nFrom: s@elsewhere.example\r\n\r\nhello\r\n"

// data sends the content and wants a reply.
func (s talk) data(want string) string {
	s.t.Helper()
	s.say("DATA", "354")
	return s.say(content+".", want)
}

// id is the message's in a reply that takes it.
func id(reply string) string {
	_, id, _ := strings.Cut(reply, "id=")
	return id
}

// waitsIn waits until a message is in a queue of Exim ("" is the normal one).
func waitsIn(t *testing.T, x *eximtest.Instance, queue, id string) {
	t.Helper()
	if err := postfixtest.Wait(id+" in the queue "+queue, func() bool {
		_, err := os.Stat(x.Root(filepath.Join("/var/spool/exim4", queue, "input", id+"-H")))
		return err == nil
	}); err != nil {
		t.Error(err)
	}
}
