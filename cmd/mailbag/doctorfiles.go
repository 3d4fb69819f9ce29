package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"mailbag/cmd/internal/access"
	"mailbag/meter"
	"mailbag/popd"
)

// daemonUser is as whom the package runs the daemons.
const daemonUser = "mailbag"

// noFile is that the daemons cannot use a file.
func noFile(path string) cause { return cause(path + " cannot be used") }

// A belonging is a file or directory that the daemons have to be able to use.
type belonging struct {
	path   string
	need   access.Right
	tree   string // what belongs to the daemons' user whole; empty: the file is root's, and readable by them
	causes cause
}

const everything = access.Read | access.Write | access.Search

// examineFiles looks whether the daemons and the MTA can use what is theirs. That root can, as whom the doctor asks, says
// nothing of it. Typically something was restored as root.
func (p *patient) examineFiles(ctx context.Context) []diagnosis {
	var found []diagnosis
	u, err := access.Lookup(daemonUser)
	if err == nil { // else the daemons run as somebody else
		mended := "" // what is mended with the directory of the ledger
		for _, b := range p.belongings(ctx) {
			if mended != "" && b.tree != mended && inside(b.path, mended) {
				continue
			}
			of := b.examine(u)
			if found = append(found, of...); of != nil && b.path == b.tree && b.causes == noLedger {
				mended = b.tree
			}
		}
	}
	if p.identity != nil {
		found = append(found, p.examineDelivery(p.identity.Owner)...)
	}
	if found == nil && err == nil {
		found = []diagnosis{{Part: "files", Result: well, Text: "the daemons can use what is theirs"}}
	}
	return found
}

// belongings are what is looked at: of Maildirs a sample, for there may be millions.
func (p *patient) belongings(ctx context.Context) []belonging {
	s := p.settings
	state := filepath.Dir(s.Beside())
	all := []belonging{{s.TLS.Certificate, access.Read, "", noFile(s.TLS.Certificate)}, {s.TLS.Key, access.Read, "", noFile(s.TLS.Key)}, {state, everything, state, noLedger}}
	if s.File != "" {
		all = append(all, belonging{s.File, access.Read, "", ""})
	}
	for _, file := range []string{s.Cluster.Credentials, s.Cluster.CA, s.Cluster.Certificate, s.Cluster.Key} {
		if file != "" {
			all = append(all, belonging{file, access.Read, "", noLedger})
		}
	}
	for _, end := range []string{"", "-wal", "-shm", "-underway"} {
		all = append(all, belonging{s.Beside() + end, access.Read | access.Write, state, noLedger})
	}
	for _, dir := range []string{s.Policy.Tables, s.POP.Maildirs} {
		all = append(all, belonging{dir, everything, dir, ""})
	}
	all = append(all, belonging{s.Turn.Sockets, everything, s.Turn.Sockets, ""})
	if p.units["mailbag-backup.service"] != nil {
		all = append(all, belonging{backups, everything, backups, ""})
	}
	if p.accounts != nil {
		for a := range p.accounts.Accounts() {
			if a.Mode == meter.POP3 && ctx.Err() == nil && len(all) < maxBelongings {
				all = append(all, mailOf(s.POP.Maildirs, a.Name)...)
			}
		}
	}
	return all
}

// Bounds of the sample.
const (
	maxBelongings = 20_000
	maxOfMaildir  = 3 // files of each directory
	maxMailboxes  = 20
)

// mailOf are the folder of an account and its Maildirs, with some messages.
func mailOf(root, account string) []belonging {
	folder := filepath.Join(root, account)
	all := []belonging{{folder, everything, root, ""}}
	maildirs, err := popd.NewStore(root, nil).Maildirs(account)
	if err != nil {
		return all
	}
	for _, d := range maildirs[:min(len(maildirs), maxMailboxes)] {
		all = append(all, belonging{d.Path(), everything, root, ""})
		for _, sub := range []string{"new", "cur", "tmp"} {
			dir := filepath.Join(d.Path(), sub)
			all = append(all, belonging{dir, everything, root, ""})
			for _, name := range some(dir) {
				all = append(all, belonging{filepath.Join(dir, name), access.Read, root, ""})
			}
		}
	}
	return all
}

// some are names of files in a directory.
func some(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxOfMaildir)
	return names
}

// examine says what is wrong with a belonging, unless it is not there.
func (b belonging) examine(u access.User) []diagnosis {
	err := u.Denied(b.path, b.need)
	var denied *access.Denial
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.As(err, &denied):
		return []diagnosis{{Part: "files", Result: illness, Text: err.Error(), Remedy: "see whether its disk is well: dmesg", cause: b.causes}}
	}
	return []diagnosis{{Part: "files", Result: illness, Text: denied.Error(), Remedy: b.remedy(denied), cause: b.causes}}
}

// remedy is one command line that lets the daemons in.
func (b belonging) remedy(denied *access.Denial) string {
	within := b.tree != "" && inside(denied.At, b.tree)
	switch {
	case inside(denied.At, runtime):
		return remedyOfTurns
	case within && denied.Owned:
		return fmt.Sprintf("run: chmod -R u+rwX %s", b.tree)
	case within:
		return fmt.Sprintf("run: chown -R %s:%[1]s %s", daemonUser, b.tree)
	case denied.At != denied.Path: // a directory above
		return "run: chmod a+x " + denied.At
	case strings.HasSuffix(b.path, ".toml"):
		return "run: chmod a+r " + b.path
	}
	return fmt.Sprintf("run: chgrp %s %s && chmod 640 %[2]s", daemonUser, b.path)
}

// inside reports whether a path is that of a directory, or below it.
func inside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// examineDelivery looks whether the MTA's deliveries, which run as its owner, can reach the daemons' sockets.
func (p *patient) examineDelivery(owner string) []diagnosis {
	var found []diagnosis
	ill := func(text, remedy string, after ...cause) {
		found = append(found, diagnosis{Part: "files", Result: illness, Text: text, Remedy: remedy, after: after})
	}
	if at := p.settings.POP.Deliver; at.Network == "unix" {
		if problem := access.Unreachable(at.Address, owner); problem != "" {
			remedy := "correct the owner in mailbag-deliver.socket, if it was changed, and run: systemctl stop mailbag-deliver.socket mailbag-popd.service; systemctl start mailbag-popd.service"
			if denied := deniedTo(owner, at.Address); denied != nil && denied.At != denied.Path && inside(denied.At, runtime) {
				remedy = remedyOfTurns
			}
			ill("mail for mailboxes: "+problem, remedy, down("mailbag-popd"))
		}
	}
	open, err := filepath.Glob(filepath.Join(p.settings.Turn.Sockets, "*.sock"))
	if err != nil {
		ill(err.Error(), "correct turn.sockets in the settings")
	}
	for _, path := range open {
		problem := access.Unreachable(path, owner)
		if _, err := os.Lstat(path); problem != "" && err == nil { // else the turn has ended meanwhile
			ill("the mail of a turn: "+problem, remedyOfTurns)
		}
	}
	if problem := ungrouped(p.settings.Turn.Sockets, owner); problem != "" {
		ill(problem, remedyOfTurns)
	}
	return found
}

// runtime is made by systemd-tmpfiles at each start of the machine, and the directory of turns in it by mailbag-turnd-control.socket.
const runtime = "/run/mailbag"

const remedyOfTurns = "run: systemd-tmpfiles --create mailbag.conf; systemctl stop mailbag-turnd-control.socket mailbag-turnd.service; systemctl start mailbag-turnd.service"

// deniedTo is what keeps a user of the MTA's from a socket; nil: nothing does, or that cannot be seen.
func deniedTo(owner, socket string) (denied *access.Denial) {
	if u, err := access.LookupAlone(owner); err == nil {
		errors.As(u.Denied(socket, access.Write), &denied)
	}
	return denied
}

// ungrouped says why the sockets that mailbag-turnd makes in a directory would not have the group of the MTA's owner.
func ungrouped(dir, owner string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return "the sockets of turns: " + err.Error()
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Sprintf("there is no user %s, as whom the MTA runs", owner)
	}
	gid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
	if gid != u.Gid || info.Mode()&os.ModeSetgid == 0 || info.Mode().Perm()&0o010 == 0 {
		return fmt.Sprintf("the sockets of turns: %s does not hand the group of the user %s on to them (gid %s, %s)", dir, owner, gid, info.Mode())
	}
	return ""
}
