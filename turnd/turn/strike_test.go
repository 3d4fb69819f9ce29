package turn

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// A failing releaser is that of an MTA that cannot be asked for anything.
type failing struct {
	Releaser
	fails atomic.Bool
}

func (f *failing) Release(ctx context.Context, ids ...string) error {
	if f.fails.Load() {
		return errors.New("the queue manager is not there")
	}
	return f.Releaser.Release(ctx, ids...)
}

// Nor does it list its queue then, or it lists an empty one.
func TestWhatTheMTACouldNotBeAskedForIsNotStruckOff(t *testing.T) {
	t.Parallel()
	var release *failing
	h := newHouse(t, func(c *plan) {
		release = &failing{Releaser: c.Release}
		c.Release, c.FirstWait = release, 500*time.Millisecond
		c.Missing = func(_ context.Context, ids []string) ([]string, error) { return ids, nil }
	})
	const n = 10
	h.fill(n, "a@globex.example")
	h.fill(n, "a@hooli.example")
	release.fails.Store(true)
	server := customer(t, nil)
	if err := h.reverse("globex", server); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("a reversed turn ended with %v", err)
	}
	r := h.dialled(server)
	if h.waiting("globex") != n || h.waiting("hooli") != n || len(server.Messages()) != 0 {
		t.Errorf("%d and %d wait by the index, %d arrived", h.waiting("globex"), h.waiting("hooli"), len(server.Messages()))
	}
	if want := "done, but the MTA did not bring 10 of what was released"; r.Outcome != want {
		t.Errorf("recorded %+v", r)
	}
	release.fails.Store(false)
	h.bound(func(b *Bounds) { b.FirstWait = 20 * time.Second }) // it is to come about, however busy the machine is
	if h.dialled(server); len(server.Messages()) != n || h.waiting("hooli") != 0 || h.held() != n {
		t.Errorf("when it can be: %d arrived, %d wait by the index, %d are held for the other", len(server.Messages()), h.waiting("hooli"), h.held())
	}
}

// The queue cannot be listed.
func TestWhatNobodyCanTellOfIsNotStruckOff(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *plan) {
		c.FirstWait = 500 * time.Millisecond
		c.Missing = func(_ context.Context, ids []string) ([]string, error) {
			return ids, errors.New("postqueue is not there")
		}
	})
	const n = 5
	for _, id := range h.fill(n, "a@hooli.example") {
		h.stuck[id] = true
	}
	if r := h.dialled(customer(t, nil)); h.waiting("hooli") != n || r.Messages != 0 {
		t.Errorf("%d wait by the index, recorded %+v", h.waiting("hooli"), r)
	}
}
