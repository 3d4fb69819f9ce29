package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

// A pace bounds an examination.
type pace struct {
	all   time.Duration // that it may take
	first time.Duration // a part of it, for what everything else builds on
	whole int64         // the largest ledger, or copy of one, that is looked through for damage, in octets
}

// byClock is not to be wrong because the machine is busy, and not to keep the disk busy itself: mailbag-backup.service looks
// through a large ledger once each day.
var byClock = pace{25 * time.Second, 10 * time.Second, 64 << 20}

// byHand is for somebody who waits for it, for so long at the most.
func byHand(within time.Duration) pace { return pace{within * 9 / 10, within * 2 / 5, math.MaxInt64} }

// reads reports whether a file is small enough to be looked through.
func (p pace) reads(file string) bool {
	if meter.Remote(file) {
		return p.whole == math.MaxInt64
	}
	info, err := os.Stat(file)
	return err == nil && info.Size() <= p.whole
}

// A cause is an illness from which others follow, which are then not told.
type cause string

const (
	noSetup     cause = "mailbag is not set up"
	noLedger    cause = "the ledger cannot be had"
	noMTA       cause = "the MTA does not run"
	takenPort   cause = "another program has the MTA's port"
	standsAside cause = "mailbag stands aside"
	miswired    cause = "the MTA is not as mailbag needs it"
	noHelper    cause = "the helper of the daemons does not run"
	fullDisk    cause = "a disk is full"
	noBackups   cause = "there is no place for backups"
	badNotice   cause = "the text of a notice has a mistake"
)

// down is that a daemon does not answer.
func down(daemon string) cause { return cause(daemon + " does not answer") }

// A patient is the service as far as it is known before the examination.
type patient struct {
	*console
	pace     pace
	settings *settings.Settings
	mta      mta.System
	words    mta.Words
	identity *mta.Identity    // nil: it cannot be asked
	running  bool             // the MTA
	desk     *desk            // nil: the ledger cannot be had
	accounts *meter.Directory // in the ledger
	units    unitList
}

// now is in the zone in which people read times.
func (p *patient) now() time.Time { return p.console.now().In(p.settings.Billing.Location) }

// A look is the examination of one part.
type look struct {
	part string
	take func(context.Context) []diagnosis
}

// examine looks at everything. What cannot be looked at without something that failed is left out.
func (c *console) examine(ctx context.Context, at pace) []diagnosis {
	if os.Geteuid() != 0 {
		return []diagnosis{{Part: "doctor", Result: illness, Text: "this needs root, who alone can see whether others may do what they have to", Remedy: "run as root: mailbag doctor"}}
	}
	s, system, err := c.load(c.config)
	if err != nil {
		return []diagnosis{{Part: "settings", Result: illness, Text: err.Error(), Remedy: "correct them (mailbag-policyd --check validates them), and look again: mailbag doctor"}}
	}
	ctx, cancel := context.WithTimeout(ctx, at.all)
	defer cancel()
	p := c.patient(at, s, system)
	found := append([]diagnosis{{Part: "settings", Result: well, Text: "read from " + orDefaults(s.File)}}, p.admit(ctx)...)
	if p.desk != nil {
		defer p.desk.ledger.Close()
	}
	return sift(append(found, sideBySide(ctx, at.all, p.looks()...)...))
}

func (c *console) patient(at pace, s *settings.Settings, system mta.System) *patient {
	return &patient{console: c, pace: at, settings: s, mta: system, words: system.Words()}
}

func orDefaults(file string) string {
	if file == "" {
		return "nowhere: all is default"
	}
	return file
}

// admit finds out what the other looks build on.
func (p *patient) admit(ctx context.Context) []diagnosis {
	ctx, cancel := context.WithTimeout(ctx, p.pace.first)
	defer cancel()
	ledger := begin(ctx, p.openLedger)
	identity := begin(ctx, p.mta.Identity)
	running := begin(ctx, p.mta.Running)
	services := begin(ctx, func(ctx context.Context) (unitList, error) { return lookAtUnits(ctx, p.foreignUnits()...) })

	id, mtaErr := identity()
	if mtaErr == nil {
		p.identity = &id
	}
	mtaLate := ctx.Err() != nil
	var found []diagnosis
	open, err := ledger()
	switch {
	case err == nil:
		p.desk, p.accounts = open.desk, open.accounts
	case errors.Is(err, meter.ErrNoLedger) && (p.identity == nil || !p.identity.Wired):
	default:
		found = append(found, p.ledgerAway(err))
	}
	if p.identity != nil && !p.identity.Wired {
		text := p.words.Name + " does not know of mailbag, and takes no mail for accounts"
		if p.desk == nil {
			text += "; there is no ledger either"
		}
		found = append(found, diagnosis{Part: "setup", Result: illness, Text: text, Remedy: fmt.Sprintf("run: mailbag %s setup", p.words.Command), cause: noSetup})
	}
	switch {
	case mtaErr == nil:
	case mtaLate: // a command that was ended says nothing of the configuration
		found = append(found, late(p.words.Command, p.pace.first))
	default:
		found = append(found, diagnosis{Part: p.words.Command, Result: illness, Text: mtaErr.Error(), Remedy: fmt.Sprintf("install %s, or correct its configuration: %s shows what is wrong", p.words.Name, p.words.Test), cause: noMTA})
	}
	if p.units, err = services(); err != nil {
		found = append(found, diagnosis{Part: "units", Result: doubt, Text: "systemd does not say how its units are: " + err.Error(), Remedy: "see: systemctl status 'mailbag-*'"})
	}
	runs, err := running()
	if p.running = runs && err == nil; !p.running && mtaErr == nil {
		found = append(found, p.mtaDown(err))
	}
	return found
}

// looks are those that can be taken, in the order in which they are shown.
func (p *patient) looks() []look {
	return []look{
		{"ledger", p.examineLedger},
		{"nodes", p.examineNodes},
		{"files", p.examineFiles},
		{"policyd", p.examinePolicyd},
		{"turnd", p.examineTurnd},
		{"popd", p.examinePopd},
		{"units", p.examineUnits},
		{"notices", p.examineNotices},
		{"customers", p.examineCustomers},
		{p.words.Command, p.examineMTA},
		{"smtp", p.examineSMTP},
		{"certificate", p.examineCertificate},
		{"clock", p.examineClock},
		{"disk", p.examineDisks},
		{"backup", p.examineBackup},
		{"queue", p.examineQueue},
	}
}

// begin starts to find something out. What it returns waits for that, until ctx ends: then the answer is of no use any more.
func begin[T any](ctx context.Context, find func(context.Context) (T, error)) (wait func() (T, error)) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := find(ctx)
		answers <- answer{value, err}
	}()
	return func() (T, error) {
		select {
		case a := <-answers:
			return a.value, a.err
		case <-ctx.Done():
		}
		// Who saw that ctx ended has something to say, all of them within the same time.
		end, ok := ctx.Deadline()
		if now := time.Now(); !ok || end.After(now) {
			end = now
		}
		select {
		case a := <-answers:
			return a.value, a.err
		case <-time.After(time.Until(end.Add(lastWord))):
			var none T
			return none, ctx.Err()
		}
	}
}

// lastWord is for what ends with its context.
const lastWord = 200 * time.Millisecond

// sideBySide takes all looks at the same time, so that one that hangs holds up none. That one is left behind, for the
// process ends soon.
func sideBySide(ctx context.Context, within time.Duration, looks ...look) []diagnosis {
	var waits []func() ([]diagnosis, error)
	for _, l := range looks {
		waits = append(waits, begin(ctx, func(ctx context.Context) ([]diagnosis, error) { return l.take(ctx), nil }))
	}
	var all []diagnosis
	for i, wait := range waits {
		found, err := wait()
		if err != nil {
			found = []diagnosis{late(looks[i].part, within)}
		}
		all = append(all, found...)
	}
	return all
}

// late is that the time was over before something was seen.
func late(part string, within time.Duration) diagnosis {
	return diagnosis{Part: part, Result: illness, Text: fmt.Sprintf("it could not be looked at within %v", within),
		Remedy: "see what the machine waits for, its processors, a disk or a name server (uptime, dmesg, journalctl --since -5min), or give it more time: mailbag doctor --within 1m"}
}

// sift leaves out what follows from something else that was found, and tells what has one remedy once.
func sift(found []diagnosis) []diagnosis {
	causes := map[cause]bool{}
	for _, d := range found {
		causes[d.cause] = d.cause != "" && d.Result == illness || causes[d.cause]
	}
	type complaint struct {
		part, remedy string
		result       verdict
	}
	var told []diagnosis
	first := map[complaint]int{} // its place
	more := map[int]int{}
	for _, d := range found {
		if d.Text == "" || slices.ContainsFunc(d.after, func(c cause) bool { return causes[c] }) {
			told[0].readings = append(told[0].readings, d.readings...) // of the settings, which are always told
			continue
		}
		of := complaint{d.Part, d.Remedy, d.Result}
		at, again := first[of]
		if !again || d.Remedy == "" {
			first[of] = len(told)
			told = append(told, d)
			continue
		}
		more[at]++
		told[at].readings = append(told[at].readings, d.readings...)
	}
	for at, n := range more {
		told[at].Text += fmt.Sprintf("; and %d more of the kind", n)
	}
	return told
}

// opened is a ledger that could be read.
type opened struct {
	desk     *desk
	accounts *meter.Directory
}

func (p *patient) openLedger(ctx context.Context) (opened, error) {
	opt := p.settings.Ledger()
	opt.Now, opt.BusyTimeout = p.now, p.pace.first/2
	l, err := meter.Open(ctx, p.settings.Database, opt)
	if err != nil {
		return opened{}, err
	}
	all, err := l.Load(ctx)
	if err != nil {
		l.Close()
		return opened{}, err
	}
	return opened{&desk{console: p.console, settings: p.settings, mta: p.mta, ledger: l}, all}, nil
}

// examineNotices reads the operator's texts as mailbag notify does, which sends nothing with a mistake in them.
func (p *patient) examineNotices(context.Context) []diagnosis {
	d := &desk{console: p.console, settings: p.settings, mta: p.mta}
	if _, err := d.readNotices("mx.example"); err != nil {
		return []diagnosis{{Part: "notices", Result: illness, Text: err.Error(), cause: badNotice,
			Remedy: "correct it (mailbag notify --template NAME shows what was built in) or move it out of " + filepath.Clean(p.settings.Notices.Templates) + ", and run: systemctl start mailbag-notify"}}
	}
	return nil
}
