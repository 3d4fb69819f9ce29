package policy

import (
	"testing"
	"time"

	"mailbag/meter"
)

func TestNotesAreBoundedAndExpire(t *testing.T) {
	t.Parallel()
	n := newNotes(started)
	n.limit, n.life = 3, time.Hour
	a := &meter.Account{ID: 1}
	at := func(minute int) time.Time { return started.Add(time.Duration(minute) * time.Minute) }
	for i := 1; i <= 3; i++ {
		n.add([]byte(instance(at(i), i)), []byte("a@acme.example"), a, at(i))
	}
	known := func(i int) bool {
		_, _, known := n.of([]byte(instance(at(i), i)))
		return known
	}
	n.done([]byte(instance(at(2), 2)))
	n.add([]byte(instance(at(4), 4)), []byte("a@acme.example"), a, at(4))
	if !known(1) || known(2) || !known(3) || !known(4) {
		t.Fatal("a finished message makes room for another")
	}
	if n.mayHaveLost(instance(at(2), 2)) {
		t.Error("a finished message counts as lost")
	}
	n.add([]byte(instance(at(5), 5)), []byte("a@acme.example"), a, at(5))
	if known(1) || !known(3) || !known(5) {
		t.Error("the oldest goes when there are too many")
	}
	for minute, lost := range map[int]bool{-1: true, 0: true, 1: true, 2: false, 3: false} {
		if got := n.mayHaveLost(instance(at(minute), 9)); got != lost {
			t.Errorf("an unknown message of minute %d may have been lost: %v", minute, got)
		}
	}
	n.add([]byte(instance(at(64), 64)), []byte("a@acme.example"), a, at(64))
	if known(3) || !known(4) || !known(5) || !known(64) {
		t.Error("what is older than an hour goes")
	}
	n.done([]byte("unknown"))
	for _, i := range []int{5, 4, 64} {
		n.done([]byte(instance(at(i), i)))
	}
	if n.oldest != nil || n.newest != nil || len(n.byInstance) != 0 {
		t.Error("something is left")
	}
}

func TestInstanceTellsWhenItBegan(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		instance string
		ok       bool
	}{
		{instance(started.Add(123456*time.Microsecond), 7), true},
		{"", false},
		{"1.2.3", false},
		{"1.2.3.4.5", false},
		{"1.x.3.4", false},
		{"1.-2.3.4", false},
		{"1.69a42b00.fffffff.4", false},
		{"1.ffffffffffffffff.1.4", false},
	} {
		got, ok := instanceTime(test.instance)
		if ok != test.ok || ok && !got.Equal(started.Add(123456*time.Microsecond)) {
			t.Errorf("%q began at %v, %v", test.instance, got, ok)
		}
	}
}
