package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mailbag/cmd/internal/mta"
)

// aPlan has changes, or none.
type aPlan struct {
	mta.Plan
	changes bool
}

func (p aPlan) Empty() bool { return !p.changes }

// TestStandBy plays a mailbag-policyd that answers at some seconds and not at others.
func TestStandBy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		well   func(second int) bool
		aside  bool // from the beginning
		broken int  // steps that fail
		want   []string
	}{
		{"a restart", func(s int) bool { return s > 2 }, false, 0, nil},
		{"gone for a minute", func(s int) bool { return s > 60 }, false, 0, []string{"25s aside", "1m10s in"}},
		{"gone for just too short", func(s int) bool { return s > 14 }, false, 0, nil},
		{"a crash loop", func(s int) bool { return s > 300 || s%5 != 0 }, false, 0, []string{"25s aside", "5m10s in"}},
		{"aside since before the machine went down", func(int) bool { return true }, true, 0, []string{"10s in"}},
		{"Postfix cannot be changed at first", func(s int) bool { return s > 60 }, false, 2, []string{"25s fails", "26s fails", "27s aside", "1m10s in"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var got []string
				aside := test.aside
				plan := func(what string, changes bool) (mta.Plan, error) {
					if !changes {
						return aPlan{}, nil
					}
					if test.broken > 0 {
						test.broken--
						got = append(got, fmt.Sprint(time.Since(begun), " fails"))
						return nil, errors.New("postconf failed")
					}
					got = append(got, fmt.Sprint(time.Since(begun), " ", what))
					return aPlan{changes: true}, nil
				}
				w := standBy{
					answers: func(context.Context) error {
						if test.well(int(time.Since(begun) / time.Second)) {
							return nil
						}
						return errors.New("connection refused")
					},
					aside: func(context.Context) (mta.Plan, error) { return plan("aside", !aside) },
					in:    func(context.Context) (mta.Plan, error) { return plan("in", aside) },
					lock:  func(context.Context) (func(), error) { return func() {}, nil },
					apply: func(context.Context, mta.Plan) error { aside = !aside; return nil },
					note:  t.Logf,
				}
				if err := w.watch(t.Context()); err != nil {
					t.Error(err)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("it did %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestStandByLeavesAPostfixThatIsNotWiredAlone(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{nil, errors.New("connection refused")} {
		synctest.Test(t, func(t *testing.T) {
			not := func(context.Context) (mta.Plan, error) { return nil, mta.ErrNotWired }
			w := standBy{answers: func(context.Context) error { return answer }, aside: not, in: not, note: t.Logf,
				lock: func(context.Context) (func(), error) { return func() {}, nil }}
			if err := w.watch(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
