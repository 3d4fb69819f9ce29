package door

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

// acceptAgain is the pause after a connection could not be accepted.
const acceptAgain = 100 * time.Millisecond

// passing are errors of accept(2) after which the next connection may come: those of the connection itself, and
// what the system is short of now.
var passing = []syscall.Errno{
	syscall.ECONNABORTED, syscall.EPROTO, syscall.ENETDOWN, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.ENONET,
	syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
}

// Accept is l.Accept, again after a pause where its error is one that passes, until ctx is over. failed hears of each.
func Accept(ctx context.Context, l net.Listener, failed func(error)) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if err == nil || ctx.Err() != nil || !slices.ContainsFunc(passing, func(e syscall.Errno) bool { return errors.Is(err, e) }) {
			return conn, err
		}
		failed(err)
		select {
		case <-time.After(acceptAgain):
		case <-ctx.Done():
		}
	}
}
