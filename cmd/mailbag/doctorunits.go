package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/daemon"
)

// A unit is what systemd says of one, by the names of its properties. What is there several times has a line each.
type unit map[string]string

func (u unit) masked() bool { return u["LoadState"] == "masked" }
func (u unit) active() bool { return u["ActiveState"] == "active" }

// absent is that it should be there and is not: who does without it has it disabled.
func (u unit) absent() bool { return u != nil && !u.active() && u["UnitFileState"] != "disabled" }

// ended is that a daemon ended, and that systemd does not start it again by itself.
func (u unit) ended() bool {
	status := u.status()
	return u["ActiveState"] == "failed" && (status == daemon.WrongUsage || status == daemon.Misconfigured)
}

// lastWords are why a daemon ended by itself; empty: it runs, was stopped, or did not say.
func (u unit) lastWords() string {
	if status := u.status(); u.active() || status != daemon.Failed && status != daemon.Misconfigured {
		return "" // what it says otherwise is how it was while it ran
	}
	return u["StatusText"]
}

// status is that with which the service's process exited last.
func (u unit) status() int {
	n, err := strconv.Atoi(u["ExecMainStatus"])
	if err != nil {
		return daemon.Done
	}
	return n
}

// A unitList is mailbag's units, by name; nil where systemd does not run them.
type unitList map[string]unit

// A job is what runs by the clock.
type job struct {
	name   string        // of its timer and service
	does   string        // what is not done without it
	within time.Duration // after its last run it begins again
	rank   verdict       // of its absence
}

var jobs = []job{
	{"mailbag-expire", "mail is not returned after its hold time, and the ledger grows", 3 * time.Hour, illness},
	{"mailbag-notify", "customers get no notices", 3 * time.Hour, illness},
	{"mailbag-backup", "the ledger is not backed up", 50 * time.Hour, illness},
	{"mailbag-doctor", "monitoring hears nothing new of what is found here", 20 * time.Minute, doubt},
}

// stuckTime is how long a job may run.
const stuckTime = 2 * time.Hour

const standbyUnit = "mailbag-standby.service"

var daemonUnits = []string{"mailbag-policyd.service", "mailbag-turnd.service", "mailbag-popd.service", standbyUnit}

// foreignUnits are those of the MTA, and of what it takes of ours besides.
func (p *patient) foreignUnits() []string {
	if helper := p.mta.Places().Helper; helper != "" {
		return []string{p.words.Unit, helper + ".service", helper + ".socket"}
	}
	return []string{p.words.Unit}
}

// lookAtUnits asks systemd for all that are mailbag's, and for others.
func lookAtUnits(ctx context.Context, others ...string) (unitList, error) {
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // sd_booted(3)
	}
	names := append([]string{"mailbag-policyd.socket", "mailbag-milter.socket", "mailbag-turnd.socket", "mailbag-turnd-tls.socket", "mailbag-turnd-control.socket",
		"mailbag-pop3.socket", "mailbag-pop3s.socket", "mailbag-deliver.socket"}, slices.Concat(daemonUnits, others)...)
	for _, j := range jobs {
		names = append(names, j.name+".timer", j.name+".service")
	}
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"show", "--no-pager",
		"--property=Id,LoadState,ActiveState,UnitFileState,Result,StatusText,ExecMainStatus,Listen,LastTriggerUSec,ExecMainStartTimestamp,StateChangeTimestamp"}, names...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	return readUnits(string(out)), nil
}

// readUnits reads what systemctl show prints, without units that are not there.
func readUnits(text string) unitList {
	var all unitList
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		u := unit{}
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				if former := u[name]; former != "" {
					value = former + "\n" + value
				}
				u[name] = value
			}
		}
		if u["LoadState"] == "not-found" || u["Id"] == "" {
			continue
		}
		if all == nil {
			all = unitList{}
		}
		all[u["Id"]] = u
	}
	return all
}

// moment is when something was; zero: never.
func (u unit) moment(property string) time.Time {
	at, err := time.Parse("Mon 2006-01-02 15:04:05 MST", u[property])
	if err != nil {
		return time.Time{}
	}
	return at
}

// revive is how a daemon that does not answer is brought back with its sockets. While it runs systemd opens none of
// them, so it has to be stopped before.
func (u unitList) revive(program string, fronts []front) string {
	service, ok := u[program+".service"]
	if !ok {
		return "start " + program + ", or see its log"
	}
	var masked []string
	inactive := !service.active()
	names := []string{program + ".service"}
	for _, f := range fronts {
		names = append(names, f.socket)
	}
	for _, name := range names {
		if u[name].masked() {
			masked = append(masked, name)
		}
		inactive = inactive || u[name].absent()
	}
	again := fmt.Sprintf("systemctl stop %s; systemctl start %[1]s", program)
	switch {
	case masked != nil:
		return fmt.Sprintf("run: systemctl unmask %s; %s", strings.Join(masked, " "), again)
	case inactive:
		return fmt.Sprintf("run: %s; why it does not run: journalctl -u %s", again, program)
	}
	return fmt.Sprintf("run: systemctl restart %s; what it did: journalctl -u %[1]s", program)
}

// examineEnded says why a daemon ended for good. Those that ended for the same reason, as mistaken settings, are told by the
// first of them.
func (u unitList) examineEnded(name string, fronts []front) diagnosis {
	program := "mailbag-" + name
	reason := u[program+".service"]["StatusText"]
	var all []string
	for _, service := range daemonUnits {
		if u[service].ended() && u[service]["StatusText"] == reason {
			all = append(all, strings.TrimSuffix(service, ".service"))
		}
	}
	d := diagnosis{Part: name, Result: illness, cause: down(program),
		Text:   fmt.Sprintf("%s ended, and nothing starts it any more: %s", list(all), cmp.Or(reason, "it did not say why")),
		Remedy: fmt.Sprintf("once that is mended, run: systemctl restart %s; all that it said: journalctl -u %s", strings.Join(all, " "), program)}
	if all[0] != program {
		d.after = []cause{down(all[0])}
	} else if again := u.revive(program, fronts); strings.Contains(again, "unmask") {
		d.Remedy = again
	}
	return d
}

func (p *patient) examineUnits(context.Context) []diagnosis {
	services := append([]string{p.words.Unit}, daemonUnits...)
	if p.mta.Places().Milter == "" { // others' mail does not pass by mailbag-policyd, and nobody stands by for it
		services = slices.DeleteFunc(services, func(name string) bool { return name == standbyUnit })
	}
	found := p.units.examine(p.now(), services...)
	if helper := p.mta.Places().Helper; helper != "" {
		found = append(p.units.examineHelper(helper), found...)
	}
	return found
}

// examineHelper looks whether systemd has the socket at which daemons ask a helper, which it starts when they do.
func (u unitList) examineHelper(program string) []diagnosis {
	socket, ok := u[program+".socket"]
	d := diagnosis{Part: "units", Result: illness, cause: noHelper}
	switch {
	case u == nil, ok && socket.active():
		return nil
	case !ok:
		d.Text, d.Remedy = fmt.Sprintf("there is no %s.socket: the daemons cannot list the queue or release mail", program), "install the package again"
	case socket.masked():
		d.Text, d.Remedy = program+".socket is masked: the daemons cannot list the queue or release mail", fmt.Sprintf("run: systemctl unmask %s.socket; systemctl enable --now %[1]s.socket", program)
	default:
		d.Text, d.Remedy = program+".socket does not run: the daemons cannot list the queue or release mail", fmt.Sprintf("run: systemctl enable --now %s.socket; why it does not run: journalctl -u %[1]s.socket -u %[1]s.service", program)
	}
	return []diagnosis{d}
}

// examine looks at what runs by the clock, and at the services that have to start with the machine. Whether daemons and sockets do now is
// seen where they are asked.
func (u unitList) examine(now time.Time, services ...string) []diagnosis {
	var found []diagnosis
	for _, j := range jobs {
		found = append(found, u.examineJob(j, now)...)
	}
	for _, name := range services {
		unit, ok := u[name]
		if !ok {
			continue
		}
		d := diagnosis{Part: "units", Result: doubt}
		switch state := unit["UnitFileState"]; {
		case unit["ActiveState"] == "failed" && name == standbyUnit:
			d.Text = name + " failed (" + unit["Result"] + "), which has others' mail go on while mailbag-policyd is away"
			d.Remedy = fmt.Sprintf("see: journalctl -u %s; when that is mended, run: systemctl start %[1]s", name)
		case strings.HasPrefix(state, "masked"):
			d.Text, d.Remedy = name+" is masked, and does not start any more once it ends", "run: systemctl unmask "+name
			d.after = []cause{down(strings.TrimSuffix(name, ".service"))}
		case state == "disabled":
			d.Text, d.Remedy = name+" is disabled, and does not start with the machine", "run: systemctl enable "+name
		}
		found = append(found, rated(name, d)...)
	}
	if u != nil && !slices.ContainsFunc(found, func(d diagnosis) bool { return d.Text != "" }) {
		found = append(found, diagnosis{Part: "units", Result: well, Text: fmt.Sprintf("timers run, jobs succeed, and all starts with the machine (%d units)", len(u))})
	}
	return found
}

// rated is a finding of a unit, or, where it has no text, the reading alone that all is well.
func rated(name string, found ...diagnosis) []diagnosis {
	ok := 1.0
	for _, d := range found {
		if d.Text != "" {
			ok = 0
		}
	}
	found[0].readings = []reading{{"mailbag_unit_ok", []string{"unit", name}, ok}}
	return found
}

// examineJob looks at a timer and at the last run of its service.
func (u unitList) examineJob(j job, now time.Time) []diagnosis {
	timer, service := j.name+".timer", j.name+".service"
	if _, ok := u[timer]; !ok {
		return nil
	}
	t, s := diagnosis{Part: "units", Result: j.rank}, diagnosis{Part: "units", Result: j.rank}
	last := u[timer].moment("LastTriggerUSec")
	switch state := u[timer]["UnitFileState"]; {
	case u[timer].masked():
		t.Text, t.Remedy = fmt.Sprintf("%s is masked: %s", timer, j.does), fmt.Sprintf("run: systemctl unmask %s; systemctl enable --now %[1]s", timer)
	case !u[timer].active():
		t.Text, t.Remedy = fmt.Sprintf("%s does not run: %s", timer, j.does), "run: systemctl enable --now "+timer
	case state == "disabled":
		t.Result = doubt
		t.Text, t.Remedy = fmt.Sprintf("%s is disabled, and does not run after the next start of the machine", timer), "run: systemctl enable "+timer
	case !last.IsZero() && now.Sub(last) > j.within:
		t.Text, t.Remedy = fmt.Sprintf("%s ran last on %s: %s", timer, moment(last.In(now.Location())), j.does), fmt.Sprintf("run: systemctl restart %s; see: systemctl list-timers %[1]s", timer)
	}
	begun := u[service].moment("ExecMainStartTimestamp")
	switch state := u[service]["ActiveState"]; {
	case u[service].masked():
		s.Text, s.Remedy = fmt.Sprintf("%s is masked: %s", service, j.does), "run: systemctl unmask "+service
	case state == "failed":
		s.Text = fmt.Sprintf("%s failed (%s) on %s: %s", service, u[service]["Result"], moment(u[service].moment("StateChangeTimestamp").In(now.Location())), j.does)
		s.Remedy = fmt.Sprintf("see: journalctl -u %s; when that is mended, run: systemctl start %[1]s", j.name)
		s.after = []cause{noLedger, fullDisk}
		switch j.name {
		case "mailbag-notify":
			s.after = append(s.after, badNotice)
		case "mailbag-backup":
			s.after = append(s.after, noBackups)
		}
	case state == "activating" && now.Sub(begun) > stuckTime:
		s.Text = fmt.Sprintf("%s runs since %s: %s", service, moment(begun.In(now.Location())), j.does)
		s.Remedy = fmt.Sprintf("see: journalctl -u %s; then run: systemctl restart %[1]s", j.name)
	}
	return append(rated(timer, t), rated(service, s)...)
}
