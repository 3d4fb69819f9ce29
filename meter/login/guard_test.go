package login

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A hall is a guard whose waiting takes no time: what was waited is written down.
type hall struct {
	Guard
	t      *testing.T
	clock  time.Time
	waited []time.Duration
}

func newHall(t *testing.T) *hall {
	h := &hall{t: t, clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	h.Now = func() time.Time { return h.clock }
	h.Wait = func(_ context.Context, d time.Duration) error { h.waited = append(h.waited, d); return nil }
	return h
}

// try has one log-in checked, and returns how long its answer waited, in seconds, or -1 where it was throttled.
func (h *hall) try(addr, login string, right bool) int {
	h.t.Helper()
	h.waited = nil
	a := netip.MustParseAddr(addr)
	err := h.begin(a, login)
	if err == nil {
		err = h.end(h.t.Context(), a, login, right)
	}
	switch {
	case err == ErrThrottled:
		return -1
	case err != nil:
		h.t.Fatal(err)
	case len(h.waited) == 0:
		return 0
	}
	return int(h.waited[0] / time.Second)
}

// fail tries wrong passwords.
func (h *hall) fail(addr, login string, times int) []int {
	h.t.Helper()
	var waits []int
	for range times {
		waits = append(waits, h.try(addr, login, false))
	}
	return waits
}

func TestFailuresSlowDownWhatFollows(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	if diff := cmp.Diff([]int{0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30}, h.fail("192.0.2.1", "acme", 11)); diff != "" {
		t.Errorf("the delays differ (-want +got):\n%s", diff)
	}
	if got := h.try("192.0.2.1", "acme", true); got != 30 {
		t.Errorf("a right answer waits %d s; it must not be told from a wrong one by its time", got)
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.fail("192.0.2.1", "acme", 6)
	for _, want := range []int{8, 4, 2, 1, 0, 0} {
		if got := h.try("192.0.2.1", "another", true); got != want {
			t.Errorf("%d s, want %d", got, want)
		}
		delete(h.pairs.entries, key{netip.MustParsePrefix("192.0.2.1/32"), "another"}) // not known yet
		h.clock = h.clock.Add(forgetAfter)
	}
	h.clock = h.clock.Add(-time.Hour) // a clock that was set back
	if got := h.try("192.0.2.1", "third", false); got < 0 || got > 30 {
		t.Errorf("%d s after the clock was set back", got)
	}
}

func TestAddressIsSlowedDownWhateverLogInItTries(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for i := range 5 {
		h.fail("192.0.2.1", fmt.Sprint("guess", i), 1)
	}
	if got := h.try("192.0.2.1", "acme", false); got != 4 {
		t.Errorf("the sixth log-in waits %d s, want 4", got)
	}
	if got := h.try("192.0.2.2", "guess9", false); got != 0 {
		t.Errorf("the neighbour waits %d s", got)
	}
	if got := h.try("::ffff:192.0.2.1", "guess9", false); got != 8 {
		t.Errorf("the same address, mapped into IPv6, waits %d s, want 8", got)
	}
}

func TestIPv6CountsByNetwork(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for i := range 5 {
		h.fail(fmt.Sprintf("2001:db8::%x", i), fmt.Sprint("guess", i), 1)
	}
	if got := h.try("2001:db8::ffff:ffff:ffff:ffff", "acme", false); got != 4 {
		t.Errorf("another address of the /64 waits %d s, want 4", got)
	}
	if got := h.try("2001:db8:0:100::1", "acme", false); got != 0 {
		// The log-in itself has failed once.
		t.Errorf("an address of another /56 waits %d s", got)
	}
}

func TestLogInIsSlowedDownFromWhereverItIsTriedButNeverRefused(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	for _, login := range []string{"acme", "no such account"} {
		for i := range 500 {
			h.fail(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(len(login))}).String(), login, 1)
		}
		if got := h.try("192.0.2.1", login, true); got != 4 {
			t.Errorf("%s waits %d s from an address of its own, want 4", login, got)
		}
		if got := h.try("192.0.2.1", login, true); got != 0 {
			t.Errorf("%s waits %d s where it has logged in before, want 0", login, got)
		}
		h.clock = h.clock.Add(6 * forgetAfter)
		if got := h.try("192.0.2.2", login, true); got != 0 {
			t.Errorf("%s waits %d s six minutes after the attack", login, got)
		}
	}
}

func TestKnownPairAnswersForItselfOnly(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	// Two in one office, of whom one has forgotten a password in a telephone.
	h.try("192.0.2.1", "kim", true)
	h.try("192.0.2.1", "lee", true)
	if got := h.fail("192.0.2.1", "lee", 100); slices.Contains(got, -1) || got[99] != 30 {
		t.Errorf("the forgotten password waits %v", got)
	}
	if got := h.try("192.0.2.1", "kim", true); got != 0 {
		t.Errorf("the other waits %d s", got)
	}
	if got := h.try("192.0.2.1", "new", true); got != 0 {
		t.Errorf("a newcomer waits %d s", got)
	}
	if got := h.try("192.0.2.2", "lee", true); got != 0 {
		t.Errorf("the same log-in elsewhere waits %d s", got)
	}
}

func TestAddressWithFarTooManyFailuresIsThrottled(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.try("192.0.2.1", "kim", true)
	got := h.fail("192.0.2.1", "acme", 60)
	if i := slices.Index(got, -1); i != maxFailures {
		t.Errorf("throttled after %d failures, want %d", i, maxFailures)
	}
	if err := h.begin(netip.MustParseAddr("192.0.2.1"), "plainly"); err != ErrThrottled {
		t.Errorf("begin = %v; want %v before anything is checked", err, ErrThrottled)
	}
	if got := h.try("192.0.2.1", "kim", true); got != 0 {
		t.Errorf("who logged in from there before waits %d s", got)
	}
	for range 5 {
		h.clock = h.clock.Add(forgetAfter)
		if got := h.fail("192.0.2.1", "acme", 3); !slices.Equal(got, []int{30, -1, -1}) {
			t.Errorf("a minute later: %v; want one more", got)
		}
	}
}

func TestNeighboursInAWideNetworkAreSlowedDownLess(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.try("2001:db8:0:ff00::1", "kim", true)
	for i := range 20 {
		h.fail(fmt.Sprintf("2001:db8:0:%x::1", i), fmt.Sprint("guess", i), 1)
	}
	for addr, want := range map[string]int{"2001:db8:0:80::1": 30, "2001:db8:0:8000::1": 4, "2001:db8:1::1": 0} {
		if got := h.try(addr, "acme", true); got != want {
			t.Errorf("%s waits %d s, want %d", addr, got, want)
		}
	}
	if got := h.try("2001:db8:0:ff00::1", "kim", true); got != 0 {
		t.Errorf("who logged in before waits %d s", got)
	}
}

// Guesses that are under way at once have all begun before the first of them failed.
func TestParallelGuessesAreCountedWhenTheyEnd(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	addr := netip.MustParseAddr("192.0.2.1")
	answered := 0
	for range 1000 {
		if err := h.begin(addr, "acme"); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if h.end(t.Context(), addr, "acme", false) == nil {
			answered++
		}
	}
	if answered != maxFailures {
		t.Errorf("%d of 1000 guesses were answered, want %d", answered, maxFailures)
	}
	h.clock = h.clock.Add((mostFailures - maxFailures) * forgetAfter)
	h.clock = h.clock.Add(time.Second)
	if got := h.try(addr.String(), "acme", false); got != 30 {
		t.Errorf("ten minutes later an answer waits %d s, want 30", got)
	}
}

func TestAnswersThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	for what, known := range map[string]bool{"address": false, "known pair": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHall(t)
			addr := netip.MustParseAddr("192.0.2.1")
			if known {
				h.try(addr.String(), "acme", true)
			}
			h.fail(addr.String(), "acme", 5)
			waiting, release := make(chan struct{}), make(chan struct{})
			h.Wait = func(context.Context, time.Duration) error {
				waiting <- struct{}{}
				<-release
				return nil
			}
			var all sync.WaitGroup
			for range maxWaiting {
				all.Go(func() {
					if err := h.end(t.Context(), addr, "acme", false); err != nil {
						t.Error(err)
					}
				})
				<-waiting
			}
			if err := h.end(t.Context(), addr, "acme", true); err != ErrThrottled {
				t.Errorf("one more: %v, want %v", err, ErrThrottled)
			}
			if !known {
				// It has not become a known pair by that.
				if h.pairs.find(key{netip.PrefixFrom(addr, 32), "acme"}) != nil {
					t.Error("a throttled answer made the pair known")
				}
			}
			close(release)
			all.Wait()
			h.Wait = func(context.Context, time.Duration) error { return nil }
			if err := h.end(t.Context(), addr, "acme", false); err != nil {
				t.Errorf("after they have gone: %v", err)
			}
		})
	}
}

func TestThisMachineIsAClientLikeAnyOther(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		h := newHall(t)
		h.try(addr, "kim", true)
		for i := range maxFailures {
			h.fail(addr, fmt.Sprint("guess", i), 1)
		}
		if got := h.try(addr, "acme", true); got != -1 {
			t.Errorf("%s waits %d s after %d failures, want to be throttled", addr, got, maxFailures)
		}
		if got := h.try(addr, "kim", true); got != 0 {
			t.Errorf("who logged in from %s before waits %d s", addr, got)
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.fail("192.0.2.1", "acme", 9)
	h.Wait = nil // really
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.end(ctx, netip.MustParseAddr("192.0.2.1"), "acme", true); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if len(h.pairs.entries) != 0 {
		t.Error("a log-in that got no answer made the pair known")
	}
}

func TestMemoryOfTheGuardIsBounded(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.fail("192.0.2.1", "acme", 6)
	for i := range maxEntries + 100 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
		h.fail(addr, fmt.Sprint(i), 1)
		h.try(addr, fmt.Sprint(i), true)
		if i%1000 == 0 {
			h.fail("192.0.2.1", "acme", 1) // goes on and so is not forgotten
			h.clock = h.clock.Add(time.Second)
		}
	}
	for what, table := range map[string]*table{"addresses": &h.clients, "log-ins": &h.logins, "pairs": &h.pairs} {
		if len(table.entries) != maxEntries || table.recent.Len() != maxEntries {
			t.Errorf("%d %s are remembered, in a list of %d; want %d", len(table.entries), what, table.recent.Len(), maxEntries)
		}
	}
	if got := h.try("192.0.2.1", "acme", false); got != 30 {
		t.Errorf("who went on all the time waits %d s, want 30", got)
	}
}

func TestGuardIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	g := &Guard{Wait: func(context.Context, time.Duration) error { return nil }}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(j % 3)})
				if g.begin(addr, "acme") == nil {
					g.end(t.Context(), addr, "acme", (i+j)%7 == 0)
				}
			}
		})
	}
	all.Wait()
	for _, table := range []*table{&g.clients, &g.pairs, &g.logins} {
		for k, element := range table.entries {
			if n := len(element.Value.(*entry).waiting); n != 0 {
				t.Errorf("%d answers wait at %v for ever", n, k)
			}
		}
	}
}
