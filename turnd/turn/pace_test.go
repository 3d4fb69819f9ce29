package turn

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailbag/turnd/relay"
)

// A paced server takes every message, after as long as it is told to.
type paced struct{ after time.Duration }

func (s *paced) serve(conn net.Conn) {
	fmt.Fprint(conn, "220 customer.example\r\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		switch verb, _, _ := strings.Cut(lines.Text(), " "); verb {
		case "DATA":
			fmt.Fprint(conn, "354 go on\r\n")
			for lines.Scan() && lines.Text() != "." {
			}
			time.Sleep(s.after) // in a bubble
			fmt.Fprint(conn, "250 taken\r\n")
		default:
			fmt.Fprint(conn, "250 fine\r\n")
		}
	}
}

// onLine runs a test in a bubble with the pace of a fresh channel. after is the window behind so many messages, each of
// which took so long.
func onLine(t *testing.T, test func(t *testing.T, p *pace, after func(messages int, took time.Duration) int)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		server := &paced{}
		go server.serve(theirs)
		channel, err := relay.Open(t.Context(), ours, nil, relay.Options{Hostname: "mx.provider.example"})
		if err != nil {
			t.Fatal(err)
		}
		defer channel.Close()
		p := &pace{}
		if n := p.window(time.Now()); n != usualWindow {
			t.Errorf("before there is a connection the window has %d messages", n)
		}
		p.watch(channel)
		test(t, p, func(messages int, took time.Duration) (n int) {
			server.after = took
			for range messages {
				d := channel.Begin("<a@sender.example>", []string{"<a@hooli.example>"})
				fmt.Fprint(d, hello)
				if replies, _ := d.Commit(); !replies[0].Positive() {
					t.Fatal(replies)
				}
				time.Sleep(paceEvery)
				n = p.window(time.Now())
			}
			return n
		})
	})
}

func TestWindowFollowsTheLine(t *testing.T) {
	t.Parallel()
	onLine(t, func(t *testing.T, p *pace, after func(int, time.Duration) int) {
		const far = 200 * time.Millisecond
		if n := after(1, far); n <= usualWindow || n == maxWindow {
			t.Errorf("after one message on a long line the window has %d messages", n)
		}
		if n := after(20, far); n != maxWindow {
			t.Errorf("on a long line the window has %d messages", n)
		}
		if n := after(60, 2*far); n != maxWindow {
			t.Errorf("where messages take twice as long the window has %d messages", n)
		}
		if n := after(60, 4*far); n != usualWindow {
			t.Errorf("where messages wait for each other the window has %d messages", n)
		}
		if n := after(60, far); n != maxWindow {
			t.Errorf("where they wait no more the window has %d messages", n)
		}
		p.watch(p.channel)
		p.next = time.Now().Add(time.Hour)
		if n := p.window(time.Now()); n != maxWindow {
			t.Errorf("the next connection begins with a window of %d messages", n)
		}
	})
}

func TestWindowStaysWhereTheServerIsNear(t *testing.T) {
	t.Parallel()
	onLine(t, func(t *testing.T, _ *pace, after func(int, time.Duration) int) {
		if n := after(50, nearTime/2); n != usualWindow {
			t.Errorf("the window has %d messages", n)
		}
	})
}

func TestWindowStaysWhereMoreMessagesWouldWait(t *testing.T) {
	t.Parallel()
	onLine(t, func(t *testing.T, p *pace, after func(int, time.Duration) int) {
		const far = 200 * time.Millisecond
		after(1, far)
		after(40, 2*far)
		p.size = usualWindow
		if n := after(10, 2*far); n != usualWindow {
			t.Errorf("the window has %d messages", n)
		}
	})
}

// The pace is looked at no more often than messages come to an end.
func TestWindowWidensStepByStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		const far = time.Second
		go (&paced{after: far}).serve(theirs)
		channel, err := relay.Open(t.Context(), ours, nil, relay.Options{Hostname: "mx.provider.example"})
		if err != nil {
			t.Fatal(err)
		}
		defer channel.Close()
		d := channel.Begin("<a@sender.example>", []string{"<a@hooli.example>"})
		fmt.Fprint(d, hello)
		d.Commit()
		var p pace
		p.watch(channel)
		first := p.window(time.Now())
		if n := p.window(time.Now().Add(far - time.Millisecond)); n != first {
			t.Errorf("the window grew from %d to %d before a message could show what that does", first, n)
		}
		if n := p.window(time.Now().Add(far)); n <= first {
			t.Errorf("the window stayed at %d, from %d on", n, first)
		}
	})
}
