package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"mailbag/cmd/internal/units"
)

// staUnsync is STA_UNSYNC of adjtimex(2): nobody keeps the clock right.
const staUnsync = 0x40

// aheadTime is how far a record may be in the future: what programs differ in.
const aheadTime = 2 * time.Minute

func (p *patient) examineClock(ctx context.Context) []diagnosis {
	d := diagnosis{Part: "clock", Result: doubt}
	if p.desk != nil {
		if newest, err := p.desk.ledger.Newest(ctx); err == nil && newest.Sub(p.now()) > aheadTime {
			d.Text = fmt.Sprintf("the ledger has a record of %s, and it is %s: the clock is slow, or was ahead; usage falls into wrong days", moment(newest.In(p.now().Location())), moment(p.now()))
			d.Remedy = "see: timedatectl; where it is the clock that is wrong, set it and restart the daemons: systemctl restart 'mailbag-*.service'"
			return []diagnosis{d}
		}
	}
	var clock syscall.Timex
	_, err := syscall.Adjtimex(&clock)
	switch {
	case err != nil:
		d.Text, d.Remedy = "it cannot be seen whether the clock is kept right: "+err.Error(), "see: timedatectl"
	case clock.Status&staUnsync != 0:
		d.Text, d.Remedy = "nobody keeps the clock right, by which usage falls into days and months", "install an NTP client, such as systemd-timesyncd"
	default:
		d.Result, d.Text = well, "kept right by NTP"
	}
	return []diagnosis{d}
}

// Free space below which it is high time, and below which the MTA soon takes no more mail, in per cent.
const (
	littleSpace = 10
	noSpace     = 2
)

func (p *patient) examineDisks(context.Context) []diagnosis {
	directories := []string{filepath.Dir(p.settings.Beside()), p.settings.POP.Maildirs, p.settings.Policy.Tables, p.settings.Turn.Sockets}
	if p.identity != nil {
		directories = append(directories, p.identity.Directories...)
	}
	return examineDisks(append(directories, backups, "/var/log")...)
}

// A disk is a file system with those of the directories that are on it.
type disk struct {
	directories   []string
	free          int64
	space, inodes float64 // what is left, as a share
}

// examineDisks looks at each file system once. A directory that is not there yet is on that of the one above it.
func examineDisks(directories ...string) []diagnosis {
	var found []diagnosis
	var all []*disk
	byDevice := map[uint64]*disk{}
	for _, dir := range directories {
		at := dir
		info, err := os.Stat(at)
		for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			info, err = os.Stat(at)
		}
		var state syscall.Statfs_t
		if err == nil {
			err = syscall.Statfs(at, &state)
		}
		if err != nil {
			found = append(found, diagnosis{Part: "disk", Result: illness, Text: err.Error(), Remedy: "see whether the disk is well: dmesg"})
			continue
		}
		device := info.Sys().(*syscall.Stat_t).Dev
		d := byDevice[device]
		if d == nil {
			d = &disk{free: int64(state.Bavail) * state.Bsize, space: share(state.Bavail, state.Blocks), inodes: share(state.Ffree, state.Files)}
			byDevice[device], all = d, append(all, d)
		}
		d.directories = append(d.directories, dir)
	}
	for _, d := range all {
		found = append(found, d.diagnosis())
	}
	return found
}

func (d *disk) diagnosis() diagnosis {
	space, inodes := int(d.space*100), int(d.inodes*100)
	found := diagnosis{Part: "disk", Result: well, Text: fmt.Sprintf("%s free at %s (%d %% of space, %d %% of inodes)", units.RoundSize(d.free), strings.Join(d.directories, ", "), space, inodes)}
	switch least := min(space, inodes); {
	case least < noSpace && len(d.directories) == 1 && d.directories[0] == backups:
		found.Result, found.Remedy, found.cause = illness, "make room, or the ledger is not backed up", noBackups
	case least < noSpace:
		found.Result, found.Remedy, found.cause = illness, "make room, or mail is refused soon", fullDisk
	case least < littleSpace:
		found.Result, found.Remedy = doubt, "make room"
	}
	if found.Result != well && inodes < space {
		found.Remedy += ": fewer files, for it is inodes that are short"
	}
	for _, dir := range d.directories {
		found.readings = append(found.readings, reading{"mailbag_disk_free_ratio", []string{"directory", dir, "of", "space"}, d.space},
			reading{"mailbag_disk_free_ratio", []string{"directory", dir, "of", "inodes"}, d.inodes})
	}
	return found
}

// share is how much of all is left; file systems that have no bound are all free.
func share(left, all uint64) float64 {
	if all == 0 {
		return 1
	}
	return float64(left) / float64(all)
}
