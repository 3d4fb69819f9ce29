package postfix

import (
	"testing"
	"time"
)

func TestFormerLifetimesAreThoseThatSetupRaised(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	in, p := configured(t, "maximal_queue_lifetime = $life\nlife = 36h\nbounce_queue_lifetime = 60d\n")
	want := func(when string, want Lifetimes) {
		t.Helper()
		if got, err := in.FormerLifetimes(t.Context()); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", when, got, err, want)
		}
	}
	want("before setup", Lifetimes{})
	setUp(t, in, Wiring{Tables: noRoutes, LongestHold: 30 * day})
	want("after setup", Lifetimes{Message: Lifetime{true, 36 * time.Hour}})
	if err := p.Set("maximal_queue_lifetime", "40d"); err != nil {
		t.Fatal(err)
	}
	want("after the operator's own change", Lifetimes{})
}

func TestFormerLifetimeMayBePostfixsDefault(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	in, _ := configured(t, "")
	setUp(t, in, Wiring{Tables: noRoutes, LongestHold: 30 * day})
	want := Lifetimes{Lifetime{true, 5 * day}, Lifetime{true, 5 * day}}
	if got, err := in.FormerLifetimes(t.Context()); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
