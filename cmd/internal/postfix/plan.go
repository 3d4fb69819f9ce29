package postfix

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// A plan is a set of changes to one Postfix. It is good for the configuration that it was made from.
type plan struct {
	aside   time.Time // since when mailbag stands aside once the changes are made; zero: it does not
	Changes []Change  // main.cf first, then master.cf

	in     Instance
	tables tables // that have to be there; empty: none
	remove bool   // which must also be possible from a Postfix that is broken
	wired  bool   // something of ours is there already
	path   string // of the former values
	former former // to be kept when this plan is applied
	old    former // kept until then
}

// A Change is one line of main.cf or one service of master.cf. Without New it is taken out; without Old it is added.
type Change struct {
	File     string // "main.cf" or "master.cf"
	Name     string // parameter, or service/type
	Old, New Line
}

// A Line is the text of a parameter or service, if there is one.
type Line struct {
	Set  bool
	Text string
}

// Plan computes what setup would change; where mailbag stands aside, it still does afterwards. It refuses a Postfix that
// is missing, too old, broken or without cdb tables: mta.ErrMissing, mta.ErrTooOld, mta.ErrBroken, ErrNoTables. Needs root, because
// postfix check does.
func (in Instance) Plan(ctx context.Context, w mta.Needs) (mta.Plan, error) {
	c, err := in.inspect(ctx)
	if err != nil {
		return nil, err
	}
	return planned(in.plan(ctx, c, w, false))
}

// Fits is [mta.Wiring.Fits].
func (in Instance) Fits(ctx context.Context, w mta.Needs) (bool, error) {
	c, err := in.read(ctx)
	if err != nil {
		return false, err
	}
	p, err := in.plan(ctx, c, w, false)
	return err == nil && p.Empty(), err
}

// planned is a plan as others see it: none where there was an error.
func planned(p *plan, err error) (mta.Plan, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// inspect reads the configuration of a Postfix that is recent enough and sound.
func (in Instance) inspect(ctx context.Context) (configuration, error) {
	if _, err := in.Version(ctx); err != nil {
		return configuration{}, err
	}
	if err := in.Sound(ctx); err != nil {
		return configuration{}, err
	}
	types, err := in.run(ctx, "", "postconf", "-m")
	if err != nil {
		return configuration{}, fmt.Errorf("%w: %w", errBroken, err)
	}
	if !slices.Contains(strings.Fields(types), "cdb") {
		return configuration{}, fmt.Errorf("%w; install the package postfix-cdb", ErrNoTables)
	}
	return in.read(ctx)
}

// PlanRemoval computes what taking the wiring back would change. Former values come back where nobody changed ours in
// between; elsewhere our entries, with these tables in them, are cut out of what stands there now. It works on a Postfix
// that is broken, too, as long as postconf reads it.
func (in Instance) PlanRemoval(ctx context.Context, w mta.Needs) (mta.Plan, error) {
	if _, err := in.Version(ctx); err != nil {
		return nil, err
	}
	c, err := in.read(ctx)
	if err != nil {
		return nil, err
	}
	return planned(in.plan(ctx, c, mta.Needs{Tables: w.Tables}, true))
}

func (in Instance) plan(ctx context.Context, c configuration, w mta.Needs, remove bool) (*plan, error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return nil, err
	}
	old, err := readFormer(path)
	if err != nil {
		return nil, err
	}
	for name, line := range old.Main {
		if strings.Contains(c.expand(line.Was), "$") {
			expanded, err := in.expandedAs(ctx, name, line.Was)
			if err != nil {
				return nil, err
			}
			if expanded != "" {
				c.former[line.Was] = expanded
			}
		}
	}
	p := &plan{in: in, path: path, old: old, remove: remove, former: former{Main: map[string]formerLine{}, Master: map[string]formerLine{}}}
	if !remove {
		if err := tables(w.Tables).nameable(); err != nil {
			return nil, err
		}
		p.aside, p.tables = c.aside(), tables(w.Tables)
	}
	for _, par := range parameters(w, p.aside) {
		p.line(c, old, par, !remove)
	}
	for _, id := range slices.Sorted(maps.Keys(c.entries())) {
		p.service(c, old, id, !remove)
	}
	return p, nil
}

// line plans one parameter: what would be there without us, and with us if it is to be wired.
func (p *plan) line(c configuration, former former, par parameter, wired bool) {
	text, set := c.explicit[par.name]
	now := Line{set, text}
	old := without(par, now, former.Main[par.name])
	p.wired = p.wired || old != now
	want := old
	if wired && par.wire != nil {
		b := base{c, old.Text, c.expand(old.Text), old.Set}
		switch {
		case !old.Set:
			// Postfix's default: its text where it says something, nothing where all of its macros come out empty. It is
			// known only while it is in force; behind our own value these defaults are empty or constant.
			b.text, b.expanded = "", ""
			if !set {
				b.text, b.expanded = c.inForce[par.name], c.expanded[par.name]
			} else if f, ok := former.Main[par.name]; ok {
				b.text, b.expanded = f.Was, c.expand(f.Was)
			}
			if len(words(b.expanded)) == 0 {
				b.text = ""
			}
		case old == now:
			b.expanded = c.expanded[par.name]
		}
		if par.settled != nil && now.Set && par.settled(c, now.Text) {
			want = now
		} else if wire := par.wire(b); old.Set || par.ours || wire != b.text {
			want = Line{true, wire}
		}
		if want != old {
			f := formerLine{Set: old.Set, Was: old.Text, Ours: want.Text}
			if !old.Set {
				f.Was = b.text
			}
			p.former.Main[par.name] = f
		}
	}
	if want != now {
		p.Changes = append(p.Changes, Change{"main.cf", par.name, now, want})
	}
}

// without returns the operator's own line.
func without(par parameter, now Line, was formerLine) Line {
	switch {
	case !now.Set || par.ours:
		return Line{}
	case was.Ours != "" && now.Text == was.Ours:
		if !was.Set {
			return Line{}
		}
		return Line{true, was.Was}
	}
	text := now.Text
	if par.unwrap != nil {
		text = par.unwrap(text)
	}
	for _, entry := range par.parts {
		text = cut(text, entry)
	}
	// Somebody else changed the line, or the former values are lost. What is left of a line that was not there before
	// is not worth a line.
	if text != now.Text && (text == "" && !was.Set || !was.Set && text == was.Was) {
		return Line{}
	}
	return Line{true, text}
}

// service plans one entry of master.cf. Our services are ours whole: what somebody changed in them does not last.
func (p *plan) service(c configuration, old former, id string, wired bool) {
	var now Line
	if s, ok := c.service(id); ok {
		now = Line{true, s.entry}
	}
	ours := c.entries()[id]
	was := old.Master[id]
	base := now
	if was.Ours != "" || now.Text == ours {
		base = Line{was.Set, was.Was}
	}
	p.wired = p.wired || base != now
	want := base
	if wired {
		want = Line{true, ours}
		p.former.Master[id] = formerLine{base.Set, base.Text, ours}
	}
	if want != now {
		p.Changes = append(p.Changes, Change{"master.cf", id, now, want})
	}
}

// AsideSince is since when mailbag stands aside once the changes are made; zero: it does not.
func (p *plan) AsideSince() time.Time { return p.aside }

// Empty reports whether there is nothing to change.
func (p *plan) Empty() bool { return len(p.Changes) == 0 }

// Diff shows the changes, a removed line with "-" and an added one with "+" in front, under the name of its file.
func (p *plan) Diff() string {
	var b strings.Builder
	file := ""
	for _, c := range p.Changes {
		if c.File != file {
			file = c.File
			fmt.Fprintf(&b, "%s\n", file)
		}
		for _, l := range []struct {
			sign string
			Line
		}{{"-", c.Old}, {"+", c.New}} {
			switch {
			case !l.Set:
			case c.File == "main.cf":
				fmt.Fprintf(&b, "%s %s\n", l.sign, strings.TrimRight(c.Name+" = "+l.Text, " "))
			default:
				fmt.Fprintf(&b, "%s %s\n", l.sign, l.Text)
			}
		}
	}
	return b.String()
}
