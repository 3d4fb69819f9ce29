package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"mailbag/meter"
)

// ledgerAway says what to do without the ledger. An empty one in its place would have everybody's mail refused.
func (p *patient) ledgerAway(err error) diagnosis {
	d := diagnosis{Part: "ledger", Result: illness, Text: err.Error(), Remedy: "see that the file can be read and written, or restore a backup", cause: noLedger, after: []cause{fullDisk}}
	if meter.WasMoved(err) {
		d.Remedy, d.after = "start the daemons with the settings of where it is now", nil
		return d
	}
	if meter.Remote(p.settings.Database) {
		d.Remedy = "see that most of the nodes in database run and reach each other, by a curl of /readyz at each, and what credentials and certificates [cluster] names"
		return d
	}
	if errors.Is(err, meter.ErrNoLedger) {
		d.Text = "there is no ledger " + p.settings.Database + ", so mail for accounts is put off"
		d.Remedy = "put it back, or restore the newest backup" + newestNamed() + " as README.md shows; only if there was none ever, run: mailbag " + p.words.Command + " setup"
	}
	if errors.Is(err, meter.ErrDamaged) {
		d.Remedy, d.after = restore(), nil
	}
	if errors.Is(err, meter.ErrLocked) || errors.Is(err, context.DeadlineExceeded) {
		d.Text = fmt.Sprintf("%s cannot be used within %v, so nothing is counted, and mail for accounts is put off", p.settings.Database, p.pace.first)
		d.Remedy = "see who has it open: fuser -v " + p.settings.Database
		if by := lockedBy(p.settings.Database); by != nil {
			d.Text = fmt.Sprintf("%s has %s locked, so nothing is counted, and mail for accounts is put off", by[0], p.settings.Database)
			d.Remedy = fmt.Sprintf("wait for that process, or end it: kill %d", by[0].pid)
		}
	}
	return d
}

// restore is what to do about damage.
func restore() string {
	return "stop the daemons, keep a copy of the file, and restore the newest backup that is sound" + newestNamed() + " as README.md shows"
}

// newestNamed is the path of the newest backup, where there is one, behind a comma.
func newestNamed() string {
	if path, _, err := newestBackup(backups); err == nil && path != "" {
		return ", " + path + ","
	}
	return ""
}

// evidenceAway says what to do without files of evidence.
func evidenceAway(lacks []string) diagnosis {
	return diagnosis{Part: "ledger", Result: illness, Text: strings.Join(lacks, "; "),
		Remedy: "copy them from " + filepath.Join(backups, "evidence") + " back to where they are to be, as the user mailbag's; then run: mailbag database check"}
}

// newestEvidence is how many files of evidence are looked through each time; "mailbag database check" takes all.
const newestEvidence = 3

func (p *patient) examineLedger(ctx context.Context) []diagnosis {
	if p.desk == nil {
		return nil
	}
	if err := p.desk.ledger.Writable(ctx); err != nil && ctx.Err() == nil {
		return []diagnosis{p.ledgerAway(err)}
	}
	lacks, err := p.desk.ledger.CheckEvidence(ctx, newestEvidence)
	switch {
	case err != nil && ctx.Err() == nil:
		return []diagnosis{p.ledgerAway(err)}
	case len(lacks) > 0:
		return []diagnosis{evidenceAway(lacks)}
	}
	accounts := grouped(int64(p.accounts.Len()))
	if !p.pace.reads(p.settings.Database) {
		return []diagnosis{{Part: "ledger", Result: well, Text: fmt.Sprintf("%s can be read and has %s accounts; its size leaves it to mailbag-backup to look for damage in it", p.settings.Database, accounts)}}
	}
	faults, err := p.desk.ledger.Check(ctx)
	text := fmt.Sprintf("%s is sound and has %s accounts", p.settings.Database, accounts)
	switch {
	case ctx.Err() != nil:
		text = fmt.Sprintf("%s can be read and has %s accounts; to look for damage in all of it takes longer: mailbag database check", p.settings.Database, accounts)
	case err != nil:
		return []diagnosis{p.ledgerAway(err)}
	case len(faults) > 0 && onlyEvidence(faults):
		return []diagnosis{evidenceAway(faults)}
	case len(faults) > 0:
		return []diagnosis{{Part: "ledger", Result: illness, Text: strings.Join(faults, "; "), Remedy: restore(), cause: noLedger}}
	}
	return []diagnosis{{Part: "ledger", Result: well, Text: text}}
}

// examineNodes looks at the nodes that have the ledger. Without most of them it cannot be had, which is told as that.
func (p *patient) examineNodes(ctx context.Context) []diagnosis {
	if p.desk == nil {
		return nil
	}
	var found []diagnosis
	all := p.desk.ledger.Nodes(ctx)
	for _, n := range all {
		switch {
		case n.Trouble != nil:
			found = append(found, diagnosis{Part: "nodes", Result: doubt, Text: fmt.Sprintf("%s is of no use: %v", n.URL, n.Trouble), Remedy: "start its rqlited and see its log; until then the ledger has fewer nodes to lose"})
		case n.Lax:
			found = append(found, diagnosis{Part: "nodes", Result: illness, Text: n.URL + " does not enforce foreign keys, and the ledger's copies differ once it leads", Remedy: "start its rqlited with -fk"})
		}
	}
	for _, secret := range []string{p.settings.Cluster.Credentials, p.settings.Cluster.Key} {
		if info, err := os.Stat(secret); len(all) > 0 && err == nil && info.Mode()&0o004 != 0 {
			found = append(found, diagnosis{Part: "nodes", Result: illness, Text: "everybody on this host can read " + secret + ", and so the ledger", Remedy: "chmod o= " + secret + ", and give the nodes another secret"})
		}
	}
	if len(all) > 0 && found == nil {
		found = []diagnosis{{Part: "nodes", Result: well, Text: fmt.Sprintf("all %d have what the leader has, and enforce foreign keys", len(all))}}
	}
	return found
}

// lockedBy are other processes that have locks on a ledger as who writes to it has (proc_locks(5)).
func lockedBy(database string) []holder {
	inodes := map[string]bool{}
	for _, end := range []string{"", "-shm"} {
		if info, err := os.Stat(database + end); err == nil {
			inodes[strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)] = true
		}
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	var all []holder
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line) // those that wait have one field more
		if len(f) != 8 || f[3] != "WRITE" || !inodes[f[5][strings.LastIndex(f[5], ":")+1:]] {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 && pid != os.Getpid() {
			all = append(all, named(pid))
		}
	}
	return all
}
