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
	"time"

	"github.com/d--j/go-milter"

	postfixtest "mailbag/testdata/postfix"
)

// A daemon stands for mailbag-policyd behind a real Postfix: it lets everything pass and keeps what it was asked.
type daemon struct {
	mu     sync.Mutex
	asked  map[string]int // policy requests by protocol_state, and "EOM" for the milter's end of message
	eods   map[string]int // END-OF-MESSAGE by instance
	broken int            // so many END-OF-MESSAGE requests are met with a closed connection
}

func (d *daemon) count(what string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[what]
}

// runDaemon listens on the three sockets until the test ends.
func runDaemon(t *testing.T, p *postfixtest.Instance) *daemon {
	t.Helper()
	d := &daemon{asked: map[string]int{}, eods: map[string]int{}}
	serve(t, listen(t, p, PolicySocket), d.policy)
	serve(t, listen(t, p, LookupSocket), lookup)
	server := milter.NewServer(milter.WithMilter(func() milter.Milter { return &tap{daemon: d} }))
	l := listen(t, p, MilterSocket)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with the listener
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
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

// policy answers DUNNO to every policy request.
func (d *daemon) policy(conn net.Conn) {
	attributes := map[string]string{}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			attributes[name] = value
			continue
		}
		d.mu.Lock()
		state := attributes["protocol_state"]
		d.asked[state]++
		drop := false
		if state == "END-OF-MESSAGE" {
			d.eods[attributes["instance"]]++
			drop = d.broken > 0
			d.broken--
		}
		d.mu.Unlock()
		if drop {
			return
		}
		if _, err := io.WriteString(conn, "action=DUNNO\n\n"); err != nil {
			return
		}
		clear(attributes)
	}
}

// lookup answers every socketmap request with NOTFOUND.
func lookup(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		length, err := r.ReadString(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
		if err != nil {
			return
		}
		if _, err := r.Discard(n + 1); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "9:NOTFOUND ,"); err != nil {
			return
		}
	}
}

type tap struct {
	milter.NoOpMilter
	daemon *daemon
}

func (m *tap) EndOfMessage(milter.Modifier) (*milter.Response, error) {
	m.daemon.mu.Lock()
	defer m.daemon.mu.Unlock()
	m.daemon.asked["EOM"]++
	return milter.RespAccept, nil
}

// metered is a running Postfix, set up, that relays acme.example to a sink. before may add to it.
func metered(t *testing.T, text string, before func(in Instance, p *postfixtest.Instance)) (*postfixtest.Instance, *daemon, *postfixtest.Sink) {
	t.Helper()
	postfixtest.RequirePostfix(t)
	sink := postfixtest.RunSink(t)
	host, port, _ := strings.Cut(sink.Addr(), ":")
	in, p := configured(t, "compatibility_level = 3.6\nmyhostname = mx.provider.example\nmynetworks = 127.0.0.2\ninet_protocols = ipv4\n"+
		"smtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\nalias_maps =\nsmtpd_error_sleep_time = 0\n"+
		fmt.Sprintf("relay_domains = acme.example\nrelay_transport = relay:[%s]:%s\n", host, port)+text)
	if before != nil {
		before(in, p)
	}
	setUp(t, in, Wiring{})
	d := runDaemon(t, p)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p, d, sink
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

func TestExactlyOneTapSeesEachMessage(t *testing.T) {
	t.Parallel()
	// reinjecting adds an smtpd for mail that comes back from a filter; the filter is left out: mail goes straight there.
	reinjecting := func(parameter, prefix string, options ...string) func(Instance, *postfixtest.Instance) {
		return func(in Instance, p *postfixtest.Instance) {
			addr, err := p.AddSMTPD(append([]string{parameter + "=", "mynetworks=127.0.0.0/8", "smtpd_authorized_xforward_hosts=127.0.0.0/8"}, options...)...)
			if err != nil {
				t.Error(err)
				return
			}
			host, port, _ := strings.Cut(addr, ":")
			filter := addr
			if prefix != "" {
				filter = prefix + "[" + host + "]:" + port
			}
			if _, err := in.run(t.Context(), "", "postconf", "-e", parameter+"="+filter); err != nil {
				t.Error(err)
			}
		}
	}
	quiet := "smtpd_recipient_restrictions=permit_mynetworks,reject"
	cases := map[string]struct {
		main     string
		before   func(Instance, *postfixtest.Instance)
		eod, eom int
	}{
		"nothing can refuse":              {"", nil, 1, 0},
		"header checks":                   {"header_checks = inline:{x=OK}\n", nil, 0, 1},
		"content filter, set up well":     {"", reinjecting("content_filter", "smtp:", quiet, "smtpd_end_of_data_restrictions="), 1, 0},
		"content filter, counted twice":   {"", reinjecting("content_filter", "smtp:"), 2, 0},
		"content filter with milter":      {"header_checks = inline:{x=OK}\n", reinjecting("content_filter", "smtp:", quiet, "smtpd_milters="), 0, 1},
		"content filter with two milters": {"header_checks = inline:{x=OK}\n", reinjecting("content_filter", "smtp:", quiet), 0, 2},
		"proxy filter":                    {"", reinjecting("smtpd_proxy_filter", "", quiet), 0, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, d, sink := metered(t, c.main, c.before)
			if o := send(t, p, "Subject: x\r\n\r\n"); !o.Accepted() {
				t.Fatalf("%+v", o)
			}
			if _, err := sink.WaitMessages(time.Minute, 1); err != nil {
				t.Fatal(err)
			}
			if eod, eom := d.count("END-OF-MESSAGE"), d.count("EOM"); eod != c.eod || eom != c.eom {
				t.Errorf("END-OF-MESSAGE %d times, want %d; end of message at the milter %d times, want %d", eod, c.eod, eom, c.eom)
			}
		})
	}
}

func TestTheMilterTapDoesNotSeeWhatHeaderChecksRefuse(t *testing.T) {
	t.Parallel()
	p, d, sink := metered(t, "header_checks = regexp:{{/^Subject: spam/ REJECT}}\nmilter_default_action = accept\nmilter_protocol = 2\n", nil)
	if o := send(t, p, "Subject: spam\r\n\r\n"); o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if n := d.count("EOM"); n != 0 {
		t.Errorf("the milter saw %d refused messages", n)
	}
	if o := send(t, p, "Subject: ham\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if _, err := sink.WaitMessages(time.Minute, 1); err != nil {
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

func TestEndOfMessageIsAskedAgainWithTheSameInstance(t *testing.T) {
	t.Parallel()
	p, d, sink := metered(t, "", nil)
	d.mu.Lock()
	d.broken = 3
	d.mu.Unlock()
	if o := send(t, p, "Subject: x\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if _, err := sink.WaitMessages(time.Minute, 1); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.eods) != 1 || d.asked["END-OF-MESSAGE"] != 4 {
		t.Errorf("asked %d times, by instance %v; want 4 times with one instance", d.asked["END-OF-MESSAGE"], d.eods)
	}
}

func TestETRNIsAskedOfThePolicyService(t *testing.T) {
	t.Parallel()
	p, d, _ := metered(t, "", nil)
	c, err := postfixtest.Dial(p.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Say("EHLO client.example"); err != nil {
		t.Fatal(err)
	}
	// DUNNO: the reject behind our check decides.
	reply, err := c.Say("ETRN acme.example")
	if err != nil || !strings.HasPrefix(reply, "459") && !strings.HasPrefix(reply, "554") {
		t.Errorf("%q, %v", reply, err)
	}
	if n := d.count("ETRN"); n != 1 {
		t.Errorf("the policy service was asked %d times", n)
	}
}
