package main

import (
	"fmt"
	"os"
	"path/filepath"

	"mailbag/testdata/dovecot"
	"mailbag/testdata/service"
)

const (
	idleSessions = 2000
	idleMessages = 10 // in each mailbox
	fromEach     = 50 // sessions from one address, below the limit
)

// idle is what connections take that are there and do nothing useful: those of strangers, one by one, and 2,000
// sessions with mailbag-popd that are logged in and say nothing.
func idle(bin, dir string) error {
	if err := strangers(bin, dir); err != nil {
		return err
	}
	dir = filepath.Join(dir, "sessions")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var users []string
	for i := range idleSessions {
		users = append(users, fmt.Sprint("user", i))
	}
	return besideDovecot(bin, dir, users, func(s *service.Service, d *dovecot.Instance) error {
		for _, user := range users {
			if err := fill(d, user, ours, idleMessages, 100); err != nil {
				return err
			}
		}
		popd, _ := servers(s, d)
		for i, user := range users {
			r, err := popd.enter(user, fmt.Sprintf("127.0.1.%d", 1+i/fromEach))
			if err != nil {
				return err
			}
			defer r.Close()
		}
		resident, peak, err := megabytes(s.Popd.PID())
		if err != nil {
			return err
		}
		fmt.Printf("%d idle sessions: %.0f MB resident, %.0f MB at the peak\n", idleSessions, resident, peak)
		atMost("resident memory of mailbag-popd", resident, 60, " MB")
		return nil
	})
}
