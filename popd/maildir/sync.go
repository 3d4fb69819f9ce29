package maildir

import (
	"os"
	"sync"
)

// A Syncer makes directories durable. Calls for a directory that come while it is being synced share the
// next fsync, so that many deliveries at once cost few of them.
type Syncer struct {
	mu      sync.Mutex
	running map[string]*round
	next    map[string]*round
}

// A round is one fsync of one directory.
type round struct {
	done chan struct{}
	err  error
}

// Sync returns when all that was done in the directory before the call is on the disk.
func (s *Syncer) Sync(path string) error {
	s.mu.Lock()
	r, led := s.next[path]
	if led {
		s.mu.Unlock()
		<-r.done
		return r.err
	}
	if s.next == nil {
		s.next, s.running = map[string]*round{}, map[string]*round{}
	}
	r = &round{done: make(chan struct{})}
	s.next[path] = r
	before := s.running[path]
	s.mu.Unlock()

	if before != nil {
		<-before.done
	}
	s.mu.Lock()
	delete(s.next, path)
	s.running[path] = r
	s.mu.Unlock()
	r.err = syncDirectory(path)
	s.mu.Lock()
	if s.running[path] == r {
		delete(s.running, path)
	}
	s.mu.Unlock()
	close(r.done)
	return r.err
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
