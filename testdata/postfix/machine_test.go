package postfixtest

import (
	"fmt"
	"net"
	"os/exec"
	"sync"
	"testing"
)

// A child that is being started holds every descriptor of its parent for a moment.
func TestFreePortIsFreeWhileChildrenAreStarted(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	var children sync.WaitGroup
	for range 4 {
		children.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := exec.Command("/bin/true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer children.Wait()
	defer close(done)
	for range 300 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if err := closeListener(l); err != nil {
			t.Fatal(err)
		}
	}
}
