package main

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mtatest "mailbag/testdata/mta"
	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

// A customer is a mail server that notes when messages arrive.
type customer struct {
	*postfixtest.Sink

	mu          sync.Mutex
	want        int
	n           int
	octets      int64 // of all but the first
	first, last time.Time
	all         chan struct{} // closed when as many as wanted are there
}

func newCustomer(extensions ...string) (*customer, error) {
	sink, err := postfixtest.NewSink()
	if err != nil {
		return nil, err
	}
	c := &customer{Sink: sink}
	sink.Extensions = extensions
	sink.OnMessage = c.message
	return c, sink.Start()
}

func (c *customer) message(m postfixtest.Message) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	c.last = time.Now()
	if c.n == 1 {
		c.first = c.last
	} else {
		c.octets += int64(len(m.Data))
	}
	if c.n == c.want {
		close(c.all)
	}
	return ""
}

// takes starts the delivery of so many messages and returns how many, and how many octets of content, arrive a second.
// The first message is where the clock starts. What takes longer than a minute is measured by
// what has come by then.
func (c *customer) takes(n int, start func() error) (messages, octets float64, err error) {
	c.mu.Lock()
	c.want, c.n, c.octets, c.all = n, 0, 0, make(chan struct{})
	c.mu.Unlock()
	if err := start(); err != nil {
		return 0, 0, err
	}
	select {
	case <-c.all:
	case <-time.After(time.Minute):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.last
	switch {
	case c.n < 2:
		return 0, 0, fmt.Errorf("only %d of %d messages arrived", c.n, n)
	case c.n < n:
		fmt.Printf("only %d of %d messages arrived\n", c.n, n)
		end = time.Now()
	}
	took := end.Sub(c.first).Seconds()
	return float64(c.n-1) / took, float64(c.octets) / took, nil
}

// A path is how one kind of mail gets to one kind of customer.
type path struct {
	name       string
	extensions []string // of the customer's server
	line       peer.Line
	size       int  // octets of a message
	number     int  // of messages by a turn
	plain      int  // of messages by Postfix's own client, which is slow over a distance
	sessions   int  // of that client at once
	strangers  bool // every message is from another sender to another recipient
}

const roundTrip = 100 * time.Millisecond

var (
	withChunking = postfixtest.Chunking
	noChunking   = []string{"PIPELINING", "8BITMIME", "SIZE", "ENHANCEDSTATUSCODES"}

	far    = peer.Line{Delay: roundTrip / 2}
	narrow = peer.Line{Delay: roundTrip / 2, Rate: 20_000_000 / 8}
	wide   = peer.Line{Delay: roundTrip / 2, Rate: 100_000_000 / 8}
)

// turns is how fast held mail reaches a customer in a turn: against Postfix's own smtp client on the same path, and against
// the line. Of the paths it takes the one with this name, or all.
func turns(name string) func(bin, dir string) error {
	return func(bin, dir string) error {
		measured := false
		for _, p := range paths {
			if name != "" && name != p.name {
				continue
			}
			measured = true
			turn, postfix, octets, err := p.measure(bin, filepath.Join(dir, p.name))
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if p.plain > 0 {
				fmt.Printf("%s: a turn delivers %.0f messages/s, Postfix %.1f\n", p.name, turn, postfix)
			} else {
				fmt.Printf("%s: a turn delivers %.0f messages/s\n", p.name, turn)
			}
			got := turn / postfix
			if p.plain == 0 {
				got = octets / float64(p.line.Rate)
			}
			atLeast(p.what, got, p.goal, "")
		}
		if !measured {
			return fmt.Errorf("there is no path %q", name)
		}
		return nil
	}
}

// A path with its goal: of Postfix's rate, or of the line's where Postfix sends nothing.
var paths = []struct {
	path
	what string
	goal float64
}{
	{path{"chunking", withChunking, far, 4096, 3000, 40, 1, false}, "100 ms, CHUNKING: a turn / Postfix, one connection", 30},
	{path{"strangers", withChunking, far, 4096, 3000, 40, 1, true}, "100 ms, CHUNKING, strangers: a turn / Postfix", 30},
	{path{"pipelining", noChunking, far, 4096, 150, 40, 1, false}, "100 ms, PIPELINING: a turn / Postfix, likewise", 2},
	{path{"narrow", withChunking, narrow, 50_000, 500, 0, 0, false}, "100 ms, 20 Mbit/s, 50 kB: content / the line", 0.95},
	{path{"wide", withChunking, wide, 20_000, 4000, 0, 0, true}, "100 ms, 100 Mbit/s, strangers: content / the line", 0.85},
	{path{"near", withChunking, peer.Line{}, 4096, 4000, 4000, 20, false}, "no delay: a turn / Postfix, 20 connections", 1},
}

func (p path) measure(bin, dir string) (turn, postfix, octets float64, err error) {
	server, err := newCustomer(p.extensions...)
	if err != nil {
		return 0, 0, 0, err
	}
	defer server.Stop()
	line, err := peer.NewProxy(server.Addr(), p.line)
	if err != nil {
		return 0, 0, 0, err
	}
	defer line.Stop()
	addr := line.Addr()
	if p.line == (peer.Line{}) {
		addr = server.Addr() // straight to it
	}
	if p.plain > 0 {
		if postfix, err = p.byPostfix(dir+"-postfix", addr, server); err != nil {
			return 0, 0, 0, err
		}
	}
	turn, octets, err = p.byTurn(bin, dir, addr, server)
	return turn, postfix, octets, err
}

// byPostfix is the rate of Postfix's own client from a full queue.
func (p path) byPostfix(dir, addr string, server *customer) (rate float64, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	sessions := strconv.Itoa(p.sessions)
	postfix, err := newPostfix(dir, map[string]string{
		"relay_domains":                         "acme.example",
		"transport_maps":                        fmt.Sprintf("inline:{ { acme.example = relay:[%s]:%s } }", host, port),
		"relay_destination_concurrency_limit":   sessions,
		"relay_initial_destination_concurrency": sessions,
		"defer_transports":                      "relay",
	})
	if err != nil {
		return 0, err
	}
	if err := postfix.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, postfix.Stop()) }()
	if err := p.hold(postfix, p.plain); err != nil {
		return 0, err
	}
	if err := postfix.Set("defer_transports", ""); err != nil {
		return 0, err
	}
	rate, _, err = server.takes(p.plain, func() error { return errors.Join(postfix.Reload(), postfix.FlushQueue()) })
	return rate, err
}

// byTurn is the rate of a turn.
func (p path) byTurn(bin, dir, addr string, server *customer) (rate, octets float64, err error) {
	postfix, err := newPostfix(dir, nil)
	if err != nil {
		return 0, 0, err
	}
	err = beside(bin, dir, postfix, [][]string{fetched(addr)}, func(s *service.Service) (err error) {
		if err := errors.Join(s.Turnd.Start(), postfix.Start()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Turnd.Stop(), postfix.Stop()) }()
		if err := p.hold(postfix, p.number); err != nil {
			return err
		}
		rate, octets, err = server.takes(p.number, func() error {
			_, _, err := s.Mailbag("flush", "acme")
			return err
		})
		return err
	})
	return rate, octets, err
}

// fetched is the account of which a turn delivers the mail to addr.
func fetched(addr string) []string {
	return []string{"account", "add", "acme", "--mode", "etrn", "--domain", "acme.example", "--host", addr, "--network", "127.0.0.0/8"}
}

// hold has an MTA accept mail that it does not deliver yet.
func (p path) hold(mta mtatest.Instance, n int) error {
	if err := p.send(mta, n); err != nil {
		return err
	}
	return mta.WaitQueue("the mail is held", func(queue []postfixtest.Entry) bool { return len(queue) == n && !mta.Busy() })
}

// send has mail accepted. smtp-source numbers no senders.
func (p path) send(mta mtatest.Instance, n int) error {
	if p.strangers {
		return sendAsStrangers(mta.Addr(), n, p.size)
	}
	out, err := exec.Command("smtp-source", "-d", "-s", strconv.Itoa(min(n, sessions)), "-m", strconv.Itoa(n), "-l", strconv.Itoa(p.size),
		"-f", "x@elsewhere.example", "-t", "a@acme.example", mta.Addr()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("smtp-source: %w: %s", err, out)
	}
	return nil
}

func sendAsStrangers(addr string, n, size int) error {
	data := []byte("Subject: x\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", size/45))
	var next atomic.Int64
	failed := make(chan error, sessions)
	for range sessions {
		go func() {
			c, err := postfixtest.Dial(addr, "")
			if err == nil {
				defer c.Close()
				_, err = c.Say("EHLO sender.example")
			}
			for i := next.Add(1); err == nil && i <= int64(n); i = next.Add(1) {
				m := postfixtest.Mail{From: fmt.Sprintf("x%d@elsewhere.example", i), To: []string{fmt.Sprintf("a%d@acme.example", i)}, Data: data}
				var o postfixtest.Outcome
				if o, err = c.Send(m); err == nil && !o.Accepted() {
					err = fmt.Errorf("not accepted: %+v", o)
				}
			}
			failed <- err
		}()
	}
	var err error
	for range sessions {
		err = errors.Join(err, <-failed)
	}
	return err
}
