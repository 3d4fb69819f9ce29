package main

import (
	"context"
	"iter"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailbag/cmd/internal/claim"
	"mailbag/cmd/internal/mta"
	"mailbag/meter"
)

func TestOneRunOfNotifyAtATime(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	release, err := claim.Take(t.Context(), filepath.Join(w.dir, "mailbag.db"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, errs := w.run("notify"); status != failed || !strings.Contains(errs, "another mailbag notify runs at this moment") {
		t.Errorf("a second run ended with status %d: %s", status, errs)
	}
	release()
	w.must("notify")
}

// mailedQueue counts the notices that it is given.
type mailedQueue struct {
	aQueue
	mailed int
}

func (q *mailedQueue) Submit(context.Context, string, ...string) error {
	q.mailed++
	return nil
}

func TestAListingThatMissesAMessageEndsNoOccasion(t *testing.T) {
	t.Parallel()
	waits := slices.Values([]mta.Entry{waitingEntry("WAITS", 20*24*time.Hour, "a@acme.example")})
	nothing := slices.Values([]mta.Entry(nil))
	q := &mailedQueue{}
	w := newWorkplace(t, q)
	w.must("account", "add", "acme", "--mode", "atrn", "--domain", "acme.example", "--contact", "boss@elsewhere.example", "--generate-password")
	for _, run := range []struct {
		passes []iter.Seq[mta.Entry]
		mailed int
	}{
		{[]iter.Seq[mta.Entry]{waits}, 1},
		{[]iter.Seq[mta.Entry]{nothing, waits}, 1},
		{[]iter.Seq[mta.Entry]{waits}, 1},
		{[]iter.Seq[mta.Entry]{nothing, nothing}, 1},
		{[]iter.Seq[mta.Entry]{waits}, 2},
	} {
		q.passes, q.seen = run.passes, 0
		w.must("notify")
		if q.mailed != run.mailed || q.seen != len(run.passes) {
			t.Fatalf("%d notices were mailed after %d listings, want %d after %d", q.mailed, q.seen, run.mailed, len(run.passes))
		}
	}
}

func TestLevelsOfAMonth(t *testing.T) {
	t.Parallel()
	tariff := meter.Tariff{Messages: 10, Bytes: 1003}
	for u, want := range map[meter.Usage]int64{
		{}: 0, {Messages: 7, Bytes: 802}: 0, {Messages: 8}: 80, {Bytes: 803}: 80, {Messages: 9, Bytes: 1002}: 80, {Messages: 10}: 100,
		{Bytes: 1003}: 100, {Messages: 11}: 200, {Bytes: 1004}: 200, {Messages: 20}: 200, {Messages: 21}: 300, {Messages: 10, Bytes: 3010}: 400,
	} {
		if got := limitLevel(tariff, u); got != want {
			t.Errorf("%+v is at level %d, want %d", u, got, want)
		}
	}
	bounded := tariff
	bounded.MaxTiers = 2
	for u, want := range map[meter.Usage]int64{
		{Messages: 8}: 80, {Messages: 10}: 100, {Messages: 11}: 200, {Messages: 19, Bytes: 2005}: 200, {Messages: 20}: 250,
		{Messages: 11, Bytes: 2006}: 250, {Messages: 21}: 350,
	} {
		if got := limitLevel(bounded, u); got != want {
			t.Errorf("with a bound of two tiers %+v is at level %d, want %d", u, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		tariff := meter.Tariff{Messages: rapid.Int64Range(1, math.MaxInt64).Draw(t, "limit"), Bytes: math.MaxInt64}
		used := rapid.Int64Range(0, 1e15).Draw(t, "used")
		level := limitLevel(tariff, meter.Usage{Messages: used})
		if next := limitLevel(tariff, meter.Usage{Messages: used + 1}); next < level {
			t.Fatalf("%d messages are at level %d, one more at %d", used, level, next)
		}
		// Exact, without overflow: used/limit >= 4/5.
		if nearly := used >= tariff.Messages/5*4+(tariff.Messages%5*4+4)/5; nearly != (level >= 80) {
			t.Fatalf("%d of %d are at level %d", used, tariff.Messages, level)
		}
	})
}
