package policy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"
)

func TestConnectionIsKept(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	for i := range 3 {
		if got := c.ask("protocol_state=RCPT", "recipient=nobody@listed.example"); !strings.HasPrefix(got, "550 5.1.1 ") {
			t.Errorf("request %d is answered %q", i, got)
		}
	}
	// Several in one write, the last in two.
	c.send(requestText("protocol_state=RCPT", "recipient=a@acme.example") + requestText("protocol_state=ETRN", "etrn_domain=gone.example") + "request=smtpd_acc")
	if got := c.action(); got != "DUNNO" {
		t.Errorf("answered %q", got)
	}
	if got := c.action(); !strings.HasPrefix(got, "459 4.7.1") {
		t.Errorf("answered %q", got)
	}
	c.send("ess_policy\nprotocol_state=RCPT\nrecipient=a@gone.example\n\n")
	if got := c.action(); !strings.HasPrefix(got, "450 4.2.1") {
		t.Errorf("answered %q", got)
	}
}

func TestBigRequestsAndSmallOnesTakeTurns(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	big := "helo_name=" + strings.Repeat("x", 8000)
	big += strings.Repeat("\n"+big, 6)
	for range 3 {
		if got := c.ask("protocol_state=RCPT", big, "recipient=a@gone.example"); !strings.HasPrefix(got, "450 4.2.1") {
			t.Errorf("answered %q", got)
		}
		if got := c.ask("protocol_state=RCPT", "recipient=a@acme.example"); got != "DUNNO" {
			t.Errorf("answered %q", got)
		}
	}
}

func TestBadInputClosesItsConnectionAlone(t *testing.T) {
	t.Parallel()
	for _, test := range badRequests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), nil)
			path := d.listen(t, "policy", d.ServeRequests)
			other := dial(t, path)
			other.ask("protocol_state=RCPT", "recipient=a@acme.example")
			bad := dial(t, path)
			bad.Write([]byte(test.text)) // fails where the server closes before all is written
			bad.closed()
			if got := other.ask("protocol_state=RCPT", "recipient=a@gone.example"); !strings.HasPrefix(got, "450 4.2.1") {
				t.Errorf("another client is answered %q", got)
			}
			waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), test.reason) })
			if got := metric(t, d, "mailbag_policy_bad_requests_total"); got != 1 {
				t.Errorf("bad requests: %v", got)
			}
		})
	}
}

func TestRequestCutOffIsReported(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	c.send("request=smtpd_access_policy\n")
	c.Close()
	waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), "ended within a request") })
}

func TestSlowRequestIsClosed(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), func(c *Config) { c.Bounds.Request = 50 * time.Millisecond })
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	c.send("request=smtpd_access_policy\n")
	c.closed()
	waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), "not finished in time") })
}

func TestIdleConnectionIsClosedWithoutALogLine(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), func(c *Config) { c.Bounds.Idle = 50 * time.Millisecond })
	path := d.listen(t, "policy", d.ServeRequests)
	// On a busy machine a connection may be idle for too long before it asks.
	waitFor(t, "an answer, and then the end", func() bool {
		c := dial(t, path)
		fmt.Fprint(c, requestText("protocol_state=RCPT", "recipient=a@acme.example"))
		answer, err := io.ReadAll(c)
		return err == nil && string(answer) == "action=DUNNO\n\n"
	})
	if got := d.log.String(); strings.Contains(got, "WARN") {
		t.Errorf("log %q", got)
	}
}

func TestReaderThatStoppedIsClosed(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), func(c *Config) { c.Bounds.Write = time.Second })
	path := d.listen(t, "policy", d.ServeRequests)
	stopped := dial(t, path)
	text := strings.Repeat(requestText("protocol_state=RCPT", "recipient=a@acme.example"), 100)
	for {
		if _, err := stopped.Write([]byte(text)); err != nil {
			break // the server has closed
		}
	}
	waitFor(t, "the log line", func() bool { return strings.Contains(d.log.String(), "does not read its answers") })
	if got := dial(t, path).ask("protocol_state=RCPT", "recipient=a@acme.example"); got != "DUNNO" {
		t.Errorf("another client is answered %q", got)
	}
}

func TestTooManyConnectionsLeaveTheOpenOnesAlone(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), func(c *Config) { c.Bounds.Connections = 500 })
	path := d.listen(t, "policy", d.ServeRequests)
	var open []*client
	for range 500 {
		open = append(open, dial(t, path))
	}
	waitFor(t, "500 connections", func() bool { return metric(t, d, "mailbag_policy_connections") == 500 })
	for range 1500 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	waitFor(t, "1,500 refused", func() bool { return metric(t, d, "mailbag_policy_refused_connections_total") == 1500 })
	if !strings.Contains(d.log.String(), "too many connections") {
		t.Errorf("log %q", d.log)
	}
	var wg sync.WaitGroup
	for _, c := range open {
		wg.Go(func() {
			c.send(requestText("protocol_state=RCPT", "recipient=a@acme.example"))
			if line, err := c.r.ReadString('\n'); err != nil || line != "action=DUNNO\n" {
				t.Errorf("an open connection is answered %q, %v", line, err)
			}
		})
	}
	wg.Wait()
	open[0].Close()
	waitFor(t, "a place", func() bool { return metric(t, d, "mailbag_policy_connections") == 499 })
	if got := dial(t, path).ask("protocol_state=RCPT", "recipient=a@acme.example"); got != "DUNNO" {
		t.Errorf("a new connection is answered %q", got)
	}
}

func TestTwoThousandConnections(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	var all []*client
	for range 2000 {
		all = append(all, dial(t, path))
	}
	for i, c := range all {
		if got := c.ask("protocol_state=RCPT", fmt.Sprintf("recipient=u%d@acme.example", i)); got != "DUNNO" {
			t.Fatalf("connection %d is answered %q", i, got)
		}
	}
}

func TestShutdownAnswersWhatArrived(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	idle, busy, half := dial(t, path), dial(t, path), dial(t, path)
	for _, c := range []*client{idle, busy, half} {
		c.ask("protocol_state=RCPT", "recipient=a@acme.example")
	}
	const many = 10 // whose answers fit into the socket: nobody reads them yet
	busy.send(strings.Repeat(requestText("protocol_state=RCPT", "recipient=a@acme.example"), many))
	half.send("request=smtpd_access_policy\nprotocol_state=RCPT\n")
	if err := d.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range many {
		if got := busy.action(); got != "DUNNO" {
			t.Errorf("answered %q", got)
		}
	}
	for _, c := range []*client{idle, busy, half} {
		c.closed()
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("connections are still accepted")
	}
}

// Exim makes a connection for each request, and has no other try.
func TestShutdownAnswersTheFirstRequestOfANewConnection(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	idle, fresh := dial(t, path), dial(t, path)
	idle.ask("protocol_state=RCPT", "recipient=a@acme.example")
	waitFor(t, "both connections", func() bool { return metric(t, d, "mailbag_policy_connections") == 2 })
	ended := make(chan error, 1)
	go func() { ended <- d.Shutdown(context.Background()) }()
	idle.closed()
	if got := fresh.ask("protocol_state=RCPT", "recipient=a@acme.example"); got != "DUNNO" {
		t.Errorf("answered %q", got)
	}
	fresh.closed()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	t.Parallel()
	open := &stuckTurns{entered: make(chan struct{})}
	d := openDesk(t, customers(), func(c *Config) { c.Turns = open })
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	c.send(requestText("protocol_state=ETRN", "etrn_domain=acme.example", "client_address=127.0.0.1"))
	<-open.entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Shutdown(ctx); err == nil {
		t.Error("no error although a request was cut off")
	}
	c.closed()
}

// stuckTurns open a turn when the context ends.
type stuckTurns struct {
	turns
	entered chan struct{}
}

func (s *stuckTurns) OpenTurn(ctx context.Context, _ *meter.Account, _ string) error {
	close(s.entered)
	<-ctx.Done()
	return ctx.Err()
}
