package exim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailbag/cmd/internal/mta"
)

func TestReleaseDeliversThoseMessagesAlone(t *testing.T) {
	l := newLab(t, true)
	for i := range 30 {
		l.submit(fmt.Sprintf("s%02d@held.example", i), "held\n", fmt.Sprintf("u%02d@c1.example", i))
	}
	l.submit("x@other.example", "default queue\n", "other@c1.example")
	all := l.ids()
	frozen := all[1]
	l.exim("-qGmailbag", "-Mf", frozen)
	s := l.openTurn(nil)
	// Once more what is gone, and what is on hold.
	if err := l.Release(context.Background(), append(all[1:31:31], "1aaaaa-000000-00")...); err != nil {
		t.Fatal(err)
	}
	l.wait("29 deliveries", func() bool { return len(s.delivered()) >= 29 })
	l.wait("the messages to go", func() bool { return len(l.ids()) == 2 })
	if left := l.ids(); !slices.Equal(left, all[:2]) {
		t.Errorf("the queue has %q, want %q", left, all[:2])
	}
	if got := s.delivered(); len(got) != 29 || slices.Contains(got, "u00@c1.example") || slices.Contains(got, "u01@c1.example") {
		t.Errorf("delivered: %q", got)
	}
}

func TestReleaseRefusesWhatIsNoQueueID(t *testing.T) {
	l := newLab(t, true)
	for _, id := range []string{"", "x", "-Mrm", "1aaaaa-000000-00 ", "1aaaaa-000000-0$", "../../../1-000000-00"} {
		for name, do := range map[string]func(context.Context, ...string) error{"Release": l.Release, "Return": l.Return, "Hold": l.Hold} {
			if err := do(context.Background(), id); err == nil || !strings.Contains(err.Error(), "not a queue ID") {
				t.Errorf("%s of %q: %v", name, id, err)
			}
		}
		if _, err := l.Missing(context.Background(), []string{id}); err == nil {
			t.Errorf("Missing of %q is taken", id)
		}
		if _, err := l.Reroute(context.Background(), mta.Reroute{IDs: []string{id}}, func(int) {}); err == nil {
			t.Errorf("Reroute of %q is taken", id)
		}
	}
}

func TestReturnGivesHeldMailBackAndStrandsNoNotification(t *testing.T) {
	l := newLab(t, true)
	l.submit("anna@held.example", "to be returned\n", "u1@c1.example", "u2@c1.example")
	l.submit("<>", "a bounce\n", "u3@c1.example")
	ids := l.ids()
	if err := l.Return(context.Background(), append(ids, "1aaaaa-000000-00")...); err != nil {
		t.Fatal(err)
	}
	l.wait("the notification", func() bool { return strings.Contains(l.mailbox(), "Envelope-to: anna@held.example") })
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
	for _, address := range []string{"u1@c1.example", "u2@c1.example"} {
		if !strings.Contains(l.mailbox(), "Final-Recipient: rfc822;"+address) {
			t.Errorf("the notification does not name %s:\n%s", address, l.mailbox())
		}
	}
	// Once more, of what is gone.
	if err := l.Return(context.Background(), ids...); err != nil {
		t.Error(err)
	}
}

func TestHoldMovesWhatIsInTheDefaultQueue(t *testing.T) {
	l := newLab(t, false)
	l.submit("x@other.example", "one\n", "u1@c1.example")
	l.submit("y@other.example", "two\n", "u2@c1.example")
	l.submit("z@held.example", "three\n", "u3@c1.example")
	ids := l.ids()
	l.exim("-Mf", ids[1])
	for range 2 {
		if err := l.Hold(context.Background(), append(ids, "1aaaaa-000000-00")...); err != nil {
			t.Fatal(err)
		}
		all := l.queue()
		if len(all) != 3 || !all[0].Held || all[0].Queue != "held" || all[1].Held || !all[1].OnHold || !all[2].Held {
			t.Errorf("%+v", all)
		}
	}
	// No queue run touches it.
	s := l.openTurn(nil)
	l.exim("-qff")
	if got := s.delivered(); slices.Contains(got, "u1@c1.example") {
		t.Errorf("delivered: %q", got)
	}
}

func TestRerouteTakesMailOutOfTheHeldQueueAndDeliversIt(t *testing.T) {
	l := newLab(t, true)
	l.submit("x@held.example", "one\n", "u1@c1.example")
	l.submit("y@held.example", "two\n", "u2@c1.example")
	ids := l.ids()
	// One is in delivery on its former way, and stays there.
	s := l.openTurn(make(chan struct{}))
	if err := l.Release(context.Background(), ids[0]); err != nil {
		t.Fatal(err)
	}
	<-s.begun
	told := 0
	ctx, cancel := context.WithCancel(context.Background())
	left, err := l.Reroute(ctx, mta.Reroute{IDs: ids}, func(n int) {
		told = n
		cancel()
	})
	if err == nil || !slices.Equal(left, ids[:1]) || told != 1 {
		t.Errorf("left are %q, %v, told %d; want %q", left, err, told, ids[:1])
	}
	l.wait("the other one to be delivered", func() bool {
		select {
		case <-s.begun:
			return true
		default:
			return false
		}
	})
	if e := l.queue()[1]; e.Held {
		t.Errorf("%+v is held", e)
	}
	close(s.hold)
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
	if left, err := l.Reroute(context.Background(), mta.Reroute{IDs: ids}, func(int) {}); err != nil || len(left) != 0 {
		t.Errorf("of what is gone %q are left, %v", left, err)
	}
}

func TestFlushDeliversOneDomain(t *testing.T) {
	l := newLab(t, true)
	l.submit("x@held.example", "one\n", "u1@C1.example")
	l.submit("y@other.example", "two\n", "u2@c1.example", "u@elsewhere.example")
	l.submit("z@other.example", "three\n", "u3@d1.example")
	s := l.openTurn(nil)
	if err := l.Flush(context.Background(), "c1.example"); err != nil {
		t.Fatal(err)
	}
	l.wait("two messages to go", func() bool { return len(l.ids()) == 1 })
	if got := s.delivered(); !slices.Equal(got, []string{"u1@C1.example", "u2@c1.example"}) {
		t.Errorf("delivered: %q", got)
	}
}

func TestSubmittedMessageIsDelivered(t *testing.T) {
	l := newLab(t, true)
	if err := l.Submit(context.Background(), "Subject: notice\r\n\r\n.\r\nbody\r\n", "anna@mx.example.org", "carl@mx.example.org"); err != nil {
		t.Fatal(err)
	}
	l.wait("both mailboxes", func() bool {
		return strings.Contains(l.mailbox(), "Envelope-to: anna@mx.example.org") && strings.Contains(l.mailbox(), "carl@mx.example.org")
	})
	if !strings.Contains(l.mailbox(), "\n\n.\nbody\n") {
		t.Errorf("the mailbox has:\n%s", l.mailbox())
	}
	if err := l.Submit(context.Background(), "Subject: notice\n\n"); err == nil {
		t.Error("a message without recipients was taken")
	}
}

func TestIdentityOfAnExim(t *testing.T) {
	l := newLab(t, true)
	id, err := l.Identity(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s %t %t %s %v %v %v", id.Hostname, id.Holds, id.Wired, id.Aside, id.Ports, id.Addresses, id.Doors)
	want := "mx.example.org true true 0001-01-01 00:00:00 +0000 UTC [25 465 587 2525] [198.51.100.7] " +
		"[{127.0.0.1:25 false false} {[::1]:25 false false} {127.0.0.1:587 false false} {192.0.2.1:2525 false false} {[::1]:587 false false} {127.0.0.1:465 true false} {[::1]:465 true false}]"
	if got != want || !slices.Equal(id.Directories, []string{l.dir + "/spool"}) || id.Owner == "" {
		t.Errorf("got  %s, %v, %s\nwant %s", got, id.Directories, id.Owner, want)
	}
}
