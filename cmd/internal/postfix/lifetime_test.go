package postfix

import (
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

func TestFormerLifetimesAreThoseThatSetupRaised(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	in, p := configured(t, "maximal_queue_lifetime = $life\nlife = 36h\nbounce_queue_lifetime = 60d\n")
	want := func(when string, want mta.Lifetimes) {
		t.Helper()
		if got, err := in.FormerLifetimes(t.Context()); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", when, got, err, want)
		}
	}
	want("before setup", mta.Lifetimes{})
	needs := mta.Needs{Tables: string(noRoutes), LongestHold: 30 * day}
	setUp(t, in, needs)
	if again, err := in.Plan(t.Context(), needs); err != nil || !again.Empty() {
		t.Errorf("a second setup would change, %v:\n%s", err, again.Diff())
	}
	want("after setup", mta.Lifetimes{Message: mta.Lifetime{Raised: true, Was: 36 * time.Hour}})
	if err := p.Set("maximal_queue_lifetime", "40d"); err != nil {
		t.Fatal(err)
	}
	want("after the operator's own change", mta.Lifetimes{})
}

func TestFormerLifetimeMayBePostfixsDefault(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	in, _ := configured(t, "")
	setUp(t, in, mta.Needs{Tables: string(noRoutes), LongestHold: 30 * day})
	raised := mta.Lifetime{Raised: true, Was: 5 * day}
	want := mta.Lifetimes{Message: raised, Bounce: raised}
	if got, err := in.FormerLifetimes(t.Context()); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
