package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/units"
)

// examineHost looks at what the service stands on: certificate, clock and disks.
func examineHost(ctx context.Context, s *settings.Settings, now time.Time) []diagnosis {
	queue, hostname := "/var/spool/postfix", s.Hostname
	if id, err := (postfix.Instance{}).Identity(ctx); err == nil {
		queue = id.QueueDirectory
		if hostname == "" {
			hostname = id.Hostname
		}
	}
	found := append(examineTLS(ctx, s, hostname, now), examineClock())
	return append(found, examineDisks(filepath.Dir(s.Database), s.POP.Maildirs, queue)...)
}

// staUnsync is STA_UNSYNC of adjtimex(2): nobody keeps the clock right.
const staUnsync = 0x40

func examineClock() diagnosis {
	var clock syscall.Timex
	_, err := syscall.Adjtimex(&clock)
	switch {
	case err != nil:
		return diagnosis{Part: "clock", Result: doubt, Text: "it cannot be seen whether the clock is kept right: " + err.Error(), Remedy: "see: timedatectl"}
	case clock.Status&staUnsync != 0:
		return diagnosis{Part: "clock", Result: doubt, Text: "nobody keeps the clock right, by which usage falls into days and months", Remedy: "install an NTP client, such as systemd-timesyncd"}
	}
	return diagnosis{Part: "clock", Result: well, Text: "kept right by NTP"}
}

// Free space below which it is high time, and below which Postfix soon takes no more mail, in per cent.
const (
	littleSpace = 10
	noSpace     = 2
)

// examineDisks looks at each file system once.
func examineDisks(directories ...string) []diagnosis {
	var found []diagnosis
	seen := map[uint64]bool{}
	for _, dir := range directories {
		info, err := os.Stat(dir)
		var disk syscall.Statfs_t
		if err == nil {
			if device := info.Sys().(*syscall.Stat_t).Dev; seen[device] {
				continue
			} else {
				seen[device] = true
			}
			err = syscall.Statfs(dir, &disk)
		}
		if err != nil {
			found = append(found, diagnosis{Part: "disk", Result: illness, Text: err.Error(), Remedy: "make the directory, or correct the settings"})
			continue
		}
		free := int64(disk.Bavail) * disk.Bsize
		space, inodes := percent(disk.Bavail, disk.Blocks), percent(disk.Ffree, disk.Files)
		d := diagnosis{Part: "disk", Result: well, Text: fmt.Sprintf("%s free at %s (%d %% of space, %d %% of inodes)", units.RoundSize(free), dir, space, inodes), Remedy: ""}
		switch least := min(space, inodes); {
		case least < noSpace:
			d.Result, d.Remedy = illness, "make room, or mail is refused soon"
		case least < littleSpace:
			d.Result, d.Remedy = doubt, "make room"
		}
		found = append(found, d)
	}
	return found
}

// percent is how much of all is left; file systems that have no bound are all free.
func percent(left, all uint64) int {
	if all == 0 {
		return 100
	}
	return int(left * 100 / all)
}
