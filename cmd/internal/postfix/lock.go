package postfix

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Lock waits until nobody else plans changes of this Postfix, and keeps others from it until unlock is called: an operator's
// setup and mailbag's own stepping aside may come together. Neither sees what postconf does by itself.
func (in Instance) Lock(ctx context.Context) (unlock func(), err error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("the configuration of Postfix cannot be locked: %w", err)
	}
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			dir.Close()
			return nil, fmt.Errorf("the configuration of Postfix cannot be locked: %w", err)
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
