package postfix

import (
	"context"
	"errors"
	"testing"
)

func TestOneAtATimeChangesAPostfix(t *testing.T) {
	t.Parallel()
	in := Instance{ConfigDir: t.TempDir()}
	unlock, err := in.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Lock(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		unlock, err := in.Lock(t.Context())
		if err == nil {
			unlock()
		}
		second <- err
	}()
	unlock()
	if err := <-second; err != nil {
		t.Error(err)
	}
}
