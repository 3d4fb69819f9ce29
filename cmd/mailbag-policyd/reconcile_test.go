package main

import (
	"testing"
	"time"
)

func TestPassesOverTheQueueFollowTheirCost(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]time.Duration{
		0:                      15 * time.Second,
		40 * time.Millisecond:  15 * time.Second, // a queue as most are
		500 * time.Millisecond: 15 * time.Second,
		time.Second:            30 * time.Second,
		4 * time.Second:        2 * time.Minute,
		10 * time.Second:       5 * time.Minute,
		time.Hour:              5 * time.Minute,
	} {
		if got := untilNextPass(took); got != want {
			t.Errorf("after a pass of %s the next is in %s, want %s", took, got, want)
		}
	}
}
