package postfix

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/d--j/go-milter"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

// A daemon stands for mailbag-policyd behind a real Postfix: it lets everything pass and keeps what it was asked.
type daemon struct {
	mu     sync.Mutex
	asked  map[string]int                            // policy requests by protocol_state and recipient, such as "RCPT a@acme.example", and "EOM" for the milter's end of message
	answer func(attributes map[string]string) string // an action; nil: DUNNO
	broken int                                       // so many policy requests are met with a closed connection
}

func (d *daemon) count(what string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[what]
}

// runTap is the milter of a mailbag-policyd.
func runTap(t *testing.T, p *postfixtest.Instance) *daemon {
	t.Helper()
	d := &daemon{asked: map[string]int{}}
	server := milter.NewServer(milter.WithMilter(func() milter.Milter { return &tapped{daemon: d} }))
	l := listen(t, p, MilterSocket)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with the listener
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return d
}

// runDaemon has the policy service as well.
func runDaemon(t *testing.T, p *postfixtest.Instance) *daemon {
	t.Helper()
	d := runTap(t, p)
	serve(t, listen(t, p, PolicySocket), d.policy)
	return d
}

func listen(t *testing.T, p *postfixtest.Instance, name string) net.Listener {
	t.Helper()
	path := filepath.Join(p.QueueDir(), name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, -1); err != nil {
		t.Fatal(err)
	}
	return l
}

// serve hands each connection to a goroutine and waits for all of them at the end of the test.
func serve(t *testing.T, l net.Listener, with func(net.Conn)) {
	t.Helper()
	var wait sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wait.Go(func() {
				with(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		wait.Wait()
	})
}

func (d *daemon) policy(conn net.Conn) {
	attributes := map[string]string{}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			attributes[name] = value
			continue
		}
		d.mu.Lock()
		action := "DUNNO"
		if d.answer != nil {
			action = d.answer(attributes)
		}
		d.asked[attributes["protocol_state"]+" "+attributes["recipient"]]++
		drop := d.broken > 0
		d.broken--
		d.mu.Unlock()
		if drop {
			return
		}
		if _, err := io.WriteString(conn, "action="+action+"\n\n"); err != nil {
			return
		}
		clear(attributes)
	}
}

type tapped struct {
	milter.NoOpMilter
	daemon *daemon
}

func (m *tapped) EndOfMessage(milter.Modifier) (*milter.Response, error) {
	m.daemon.mu.Lock()
	defer m.daemon.mu.Unlock()
	m.daemon.asked["EOM"]++
	return milter.RespAccept, nil
}

// provider is what the main.cf of a provider has in the tests that run it.
const provider = "compatibility_level = 3.6\nmyhostname = mx.provider.example\nmynetworks = 127.0.0.2\ninet_protocols = ipv4\n" +
	"smtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\nalias_maps =\nsmtpd_error_sleep_time = 0\nlocal_transport = discard\n" +
	"default_transport = discard\nlocal_recipient_maps =\n"

// provided is a Postfix that was set up with acme.example, whose mail goes to a sink, and what else routes say. It is not
// started. before may add to it.
func provided(t *testing.T, text, routes string, before func(in Instance, p *postfixtest.Instance)) (Instance, *postfixtest.Instance, *postfixtest.Sink) {
	t.Helper()
	postfixtest.RequirePostfix(t)
	sink := postfixtest.RunSink(t)
	host, port, _ := strings.Cut(sink.Addr(), ":")
	in, p := configured(t, provider+text)
	if before != nil {
		before(in, p)
	}
	w := mta.Needs{Tables: p.Path("tables")}
	if err := os.Mkdir(w.Tables, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := lay(tables(w.Tables), fmt.Sprintf("acme.example relay:[%s]:%s\n", host, port)+routes); err != nil {
		t.Fatal(err)
	}
	setUp(t, in, w)
	return in, p, sink
}

func start(t *testing.T, p *postfixtest.Instance) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, p *postfixtest.Instance, content string) postfixtest.Outcome {
	t.Helper()
	o, err := postfixtest.Send(p.Addr(), "", postfixtest.Mail{From: "a@outside.example",
		To: []string{"x@acme.example", "y@acme.example"}, Data: []byte(content)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTheTapSeesWhatComesInHoweverItComes(t *testing.T) {
	t.Parallel()
	_, p, sink := provided(t, "", "", nil)
	d := runDaemon(t, p)
	start(t, p)
	if o := send(t, p, "Subject: x\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if err := (Instance{p.ConfigDir()}).Submit(t.Context(), "Subject: y\n\n", "z@acme.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitMessages(2); err != nil {
		t.Fatalf("%v\n%s", err, p.Log())
	}
	if n := d.count("EOM"); n != 2 {
		t.Errorf("the tap saw %d messages, want 2", n)
	}
}

func TestTheTapSeesWhatComesBackFromAProxyFilter(t *testing.T) {
	t.Parallel()
	// An smtpd for mail that comes back from a filter; the filter is left out: mail goes straight there.
	_, p, sink := provided(t, "", "", func(in Instance, p *postfixtest.Instance) {
		addr, err := p.AddSMTPD("smtpd_proxy_filter=", "mynetworks=127.0.0.0/8", "smtpd_authorized_xforward_hosts=127.0.0.0/8",
			"smtpd_recipient_restrictions=permit_mynetworks,reject")
		if err != nil {
			t.Fatal(err)
		}
		edit(t, in, "-e", "smtpd_proxy_filter="+addr)
	})
	d := runDaemon(t, p)
	start(t, p)
	if o := send(t, p, "Subject: x\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	if n := d.count("EOM"); n != 1 {
		t.Errorf("the tap saw %d messages, want 1", n)
	}
}

func TestTheTapDoesNotSeeWhatHeaderChecksRefuse(t *testing.T) {
	t.Parallel()
	_, p, sink := provided(t, "header_checks = regexp:{{/^Subject: spam/ REJECT}}\nmilter_default_action = accept\nmilter_protocol = 2\n", "", nil)
	d := runDaemon(t, p)
	start(t, p)
	if o := send(t, p, "Subject: spam\r\n\r\n"); o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if n := d.count("EOM"); n != 0 {
		t.Errorf("the milter saw %d refused messages", n)
	}
	if o := send(t, p, "Subject: ham\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	if n := d.count("EOM"); n != 1 {
		t.Errorf("the milter saw %d messages, want 1", n)
	}
	// Without the tap nothing is accepted, although milter_default_action says so.
	if err := os.Remove(p.Private("mailbag-milter")); err != nil {
		t.Fatal(err)
	}
	if o := send(t, p, "Subject: ham\r\n\r\n"); o.Accepted() {
		t.Errorf("accepted without a tap: %+v", o)
	}
}
