package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
)

// examineDelivery looks whether lmtp(8), which runs as Postfix's mail_owner, can reach the daemons' sockets. That
// root can, as which the doctor asks, says nothing of it.
func examineDelivery(s *settings.Settings, owner string) []diagnosis {
	var found []diagnosis
	ill := func(text, remedy string) {
		found = append(found, diagnosis{Part: "postfix", Result: illness, Text: text, Remedy: remedy})
	}
	if at := s.POP.Deliver; at.Network == "unix" {
		if problem := postfix.Unreachable(at.Address, owner); problem != "" {
			ill("mail for mailboxes: "+problem, "correct the owner in mailbag-deliver.socket, if it was changed, and run: systemctl stop mailbag-deliver.socket mailbag-popd.service; systemctl start mailbag-popd.service")
		}
	}
	open, err := filepath.Glob(filepath.Join(s.Turn.Sockets, "*.sock"))
	if err != nil {
		ill(err.Error(), "correct turn.sockets in the settings")
	}
	for _, path := range open {
		problem := postfix.Unreachable(path, owner)
		if _, err := os.Lstat(path); problem != "" && err == nil { // else the turn has ended meanwhile
			ill("the mail of a turn: "+problem, remedyOfTurns)
		}
	}
	if problem := ungrouped(s.Turn.Sockets, owner); problem != "" {
		ill(problem, remedyOfTurns)
	}
	return found
}

const remedyOfTurns = "run: systemd-tmpfiles --create mailbag.conf"

// ungrouped says why the sockets that mailbag-turnd makes in a directory would not have the group of Postfix's owner.
func ungrouped(dir, owner string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return "the sockets of turns: " + err.Error()
	}
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Sprintf("there is no user %s, who is Postfix's mail_owner", owner)
	}
	gid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
	if gid != u.Gid || info.Mode()&os.ModeSetgid == 0 || info.Mode().Perm()&0o010 == 0 {
		return fmt.Sprintf("the sockets of turns: %s does not hand the group of the user %s on to them (gid %s, %s)", dir, owner, gid, info.Mode())
	}
	return ""
}
