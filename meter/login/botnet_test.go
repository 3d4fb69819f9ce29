package login

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hour is how many guesses are answered in an hour, in which each second has many, each from the next address and at the
// next log-in.
func (h *hall) hour(address func(i int) netip.Addr) (answered int) {
	for i := range 3600 * 20 {
		if i%20 == 0 {
			h.clock = h.clock.Add(time.Second)
		}
		if h.try(address(i).String(), fmt.Sprint("guess", i), false) >= 0 {
			answered++
		}
	}
	return answered
}

func TestAnHourOfGuessing(t *testing.T) {
	t.Parallel()
	// six makes addresses of which so many bits behind 2001:db8::/32 differ.
	six := func(first, bits int) func(int) netip.Addr {
		return func(i int) netip.Addr {
			a := netip.MustParseAddr("2001:db8::1").As16()
			binary.BigEndian.PutUint32(a[4:], uint32(i%(1<<bits))<<(32-first-bits))
			return netip.AddrFrom16(a)
		}
	}
	for _, c := range []struct {
		from    string
		address func(int) netip.Addr
		most    int
	}{
		{"one IPv4 address", func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }, 110},
		{"a /64", six(32, 0), 110},
		{"all of a /56", six(24, 8), 220},
		{"all of a /52", six(20, 12), 440},
		{"all of a /48", six(16, 16), 440},
	} {
		t.Run(c.from, func(t *testing.T) {
			t.Parallel()
			got := newHall(t).hour(c.address)
			if got > c.most || got < c.most*9/10 {
				t.Errorf("%d guesses were answered, want some %d", got, c.most)
			}
			t.Logf("%d guesses were answered", got)
		})
	}
}

// A botnet guesses at one log-in for an hour of a time that is not the real one, with a guess a second from each address that
// addresses gives it. It returns how many guesses were answered. Each minute the owner comes from an address of which nothing
// is known; owner is how he fares.
func botnet(t *testing.T, size int, address func(bot, second int) netip.Addr, owner func(error, time.Duration)) (answered int64) {
	synctest.Test(t, func(t *testing.T) {
		var g Guard
		var told atomic.Int64
		var all sync.WaitGroup
		for bot := range size {
			all.Go(func() {
				for second := range 3600 {
					all.Go(func() {
						addr := address(bot, second)
						if g.begin(addr, "acme") == nil && g.end(t.Context(), addr, "acme", false) == nil {
							told.Add(1)
						}
					})
					time.Sleep(time.Second)
				}
			})
		}
		for minute := range 60 {
			time.Sleep(time.Minute)
			began := time.Now()
			err := g.end(t.Context(), netip.AddrFrom4([4]byte{192, 0, 2, byte(minute)}), "acme", true)
			owner(err, time.Since(began))
		}
		all.Wait()
		answered = told.Load()
	})
	return answered
}

func TestOwnerOfALogInGetsInWhileABotnetGuessesAtIt(t *testing.T) {
	t.Parallel()
	got := botnet(t, 100, func(bot, _ int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(bot >> 8), byte(bot)}) },
		func(err error, took time.Duration) {
			if err != nil || took > longestLoginDelay {
				t.Errorf("the owner waited %v and is told: %v", took, err)
			}
		})
	t.Logf("of 100 addresses' guesses %d were answered in an hour", got)
	if got > 7300 {
		t.Errorf("%d guesses were answered", got)
	}
}

func TestGuessesAtALogInAreBoundedHoweverManyAddressesThereAre(t *testing.T) {
	t.Parallel()
	got := botnet(t, 10, func(bot, second int) netip.Addr { // each but once
		return netip.AddrFrom4([4]byte{10, byte(bot), byte(second >> 8), byte(second)})
	}, func(error, time.Duration) {})
	t.Logf("of 36,000 addresses' guesses %d were answered in an hour", got)
	if got < 6500 || got > 7300 {
		t.Errorf("%d guesses were answered, want some 7,200", got)
	}
}
