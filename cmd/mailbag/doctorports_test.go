package main

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mailbag/cmd/internal/settings"
)

func TestWhoHasAPortIsFound(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := holder{filepath.Base(self), os.Getpid()}
	// A child that another test starts has the ports too until it becomes its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Log(err) // a machine without that kind of network
			continue
		}
		host, _, _ := net.SplitHostPort(at)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		f := front{at: settings.Address{Network: "tcp", Address: net.JoinHostPort(host, port)}}
		every := front{at: settings.Address{Network: "tcp", Address: ":" + port}}
		for _, f := range []front{f, every} {
			if got := foreignHolders([]front{f}, "mailbag-popd"); got[f.at.Address] != want {
				t.Errorf("%s: %v, want %v", f.at, got, want)
			}
			if got := foreignHolders([]front{f}, want.program); len(got) > 0 {
				t.Errorf("%s: the program itself is in its own way: %v", f.at, got)
			}
		}
		l.Close()
		if got := foreignHolders([]front{f}, "mailbag-popd"); len(got) > 0 {
			t.Errorf("%s: where nobody listens any more: %v", f.at, got)
		}
	}
}
