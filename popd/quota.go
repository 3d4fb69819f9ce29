package popd

import (
	"errors"
	"sync"
	"time"

	"mailbag/meter"
)

// errOverQuota says that the account may not store more.
var errOverQuota = errors.New("the mailbox is full")

// storage is what an account with a quota has stored, as it was last counted and as we added to it since.
type storage struct {
	mu      sync.Mutex
	octets  int64 // delivered
	claimed int64 // being delivered
	counted time.Time
	took    time.Duration
}

// Other programs may take mail out at any time, so what is stored is counted again when it was not for a
// minute, but so that counting takes a hundredth of the time at most.
const (
	countEvery = time.Minute
	countShare = 100
)

// claim takes room for octets within the account's quota, or returns errOverQuota. Afterwards settle has to be
// called with what came of it. Claiming nothing asks whether there is room for anything.
func (s *Store) claim(a *meter.Account, octets int64) (settle func(delivered bool), err error) {
	if a.Quota == 0 {
		return func(bool) {}, nil
	}
	s.mu.Lock()
	had := s.measured[a.Name]
	if had == nil {
		had = new(storage)
		s.measured[a.Name] = had
	}
	s.mu.Unlock()
	had.mu.Lock()
	defer had.mu.Unlock()
	if now := s.now(); now.Sub(had.counted) > max(countEvery, countShare*had.took) {
		stored, err := s.Stored(a.Name)
		if err != nil {
			return nil, err
		}
		had.octets, had.counted, had.took = stored.Bytes, now, s.now().Sub(now)
	}
	if had.octets+had.claimed+max(octets, 1) > a.Quota {
		return nil, errOverQuota
	}
	had.claimed += octets
	return func(delivered bool) {
		had.mu.Lock()
		defer had.mu.Unlock()
		had.claimed -= octets
		if delivered {
			had.octets += octets
		}
	}, nil
}

// freed says that mail of an account was removed: the next claim counts anew.
func (s *Store) freed(account string) {
	s.mu.Lock()
	had := s.measured[account]
	s.mu.Unlock()
	if had != nil {
		had.mu.Lock()
		defer had.mu.Unlock()
		had.counted = time.Time{}
	}
}
