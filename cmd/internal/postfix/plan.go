package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mailbag/cmd/internal/wholefile"
)

// A Plan is a set of changes to one Postfix. It is good for the configuration that it was made from.
type Plan struct {
	Tap     Tap      // where messages are to be counted; empty in a removal
	Because []string // what made the choice fall on MilterTap: parameters, or service/type/parameter
	Changes []Change // main.cf first, then master.cf

	in     Instance
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

// Plan computes what setup would change. It refuses a Postfix that is missing, too old or broken: ErrMissing,
// ErrTooOld, ErrBroken. Needs root, because postfix check does.
func (in Instance) Plan(ctx context.Context, w Wiring) (*Plan, error) {
	c, err := in.inspect(ctx)
	if err != nil {
		return nil, err
	}
	return in.plan(ctx, c, &w)
}

// inspect reads the configuration of a Postfix that is recent enough and sound.
func (in Instance) inspect(ctx context.Context) (configuration, error) {
	if _, err := in.Version(ctx); err != nil {
		return configuration{}, err
	}
	if err := in.Sound(ctx); err != nil {
		return configuration{}, err
	}
	return in.read(ctx)
}

// PlanRemoval computes what taking the wiring back would change. Former values come back where nobody changed ours in
// between; elsewhere our entries are cut out of what stands there now. It works on a Postfix that is broken, too, as
// long as postconf reads it.
func (in Instance) PlanRemoval(ctx context.Context) (*Plan, error) {
	if _, err := in.Version(ctx); err != nil {
		return nil, err
	}
	c, err := in.read(ctx)
	if err != nil {
		return nil, err
	}
	return in.plan(ctx, c, nil)
}

// plan is for a removal when w is nil.
func (in Instance) plan(ctx context.Context, c configuration, w *Wiring) (*Plan, error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return nil, err
	}
	old, err := readFormer(path)
	if err != nil {
		return nil, err
	}
	p := &Plan{in: in, path: path, old: old, former: former{Main: map[string]formerLine{}, Master: map[string]formerLine{}}}
	all := parameters(Wiring{}, "")
	if w != nil {
		p.Tap, p.Because = c.choose()
		all = parameters(*w, p.Tap)
	}
	for _, par := range all {
		p.line(c, old, par, w != nil)
	}
	for _, id := range slices.Sorted(maps.Keys(c.entries())) {
		p.service(c, old, id, w != nil)
	}
	return p, nil
}

// line plans one parameter: what would be there without us, and with us if it is to be wired.
func (p *Plan) line(c configuration, old former, par parameter, wired bool) {
	text, set := c.explicit[par.name]
	now := Line{set, text}
	base := without(par, now, old.Main[par.name], c.inForce[par.name])
	want := base
	if wired && par.wire != nil {
		in, expanded := base.Text, c.expand(base.Text)
		switch {
		case !base.Set:
			// Postfix's default: its text where it says something, nothing where all of its macros come out empty. It is
			// known only while it is in force; behind our own value these defaults are empty or constant.
			in, expanded = "", ""
			if !set {
				in, expanded = c.inForce[par.name], c.expanded[par.name]
			} else if f, ok := old.Main[par.name]; ok {
				in, expanded = f.Was, c.expand(f.Was)
			}
			if len(words(expanded)) == 0 {
				in = ""
			}
		case base == now:
			expanded = c.expanded[par.name]
		}
		if wire := par.wire(in, expanded); base.Set || wire != in {
			want = Line{true, wire}
		}
		if want != base {
			f := formerLine{Set: base.Set, Was: base.Text, Ours: want.Text}
			if !base.Set {
				f.Was = in
			}
			p.former.Main[par.name] = f
		}
	}
	if want != now {
		p.Changes = append(p.Changes, Change{"main.cf", par.name, now, want})
	}
}

// without returns the operator's own line. inForce is the text in force now.
func without(par parameter, now Line, was formerLine, inForce string) Line {
	switch {
	case !now.Set:
		return now
	case was.Ours != "" && now.Text == was.Ours:
		if !was.Set {
			return Line{}
		}
		return Line{true, was.Was}
	}
	text := now.Text
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
func (p *Plan) service(c configuration, old former, id string, wired bool) {
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
	want := base
	if wired {
		want = Line{true, ours}
		p.former.Master[id] = formerLine{base.Set, base.Text, ours}
	}
	if want != now {
		p.Changes = append(p.Changes, Change{"master.cf", id, now, want})
	}
}

// Empty reports whether there is nothing to change.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// Diff shows the changes, a removed line with "-" and an added one with "+" in front, under the name of its file.
func (p *Plan) Diff() string {
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

// Apply makes the changes and reloads Postfix if it runs, which it reports. When a step fails, or Postfix's own check
// then does, main.cf and master.cf are put back as they were. Needs root.
func (p *Plan) Apply(ctx context.Context) (reloaded bool, err error) {
	if p.Empty() {
		return false, p.former.write(p.path)
	}
	before, err := p.snapshot()
	if err != nil {
		return false, err
	}
	if err := p.change(ctx); err != nil {
		return false, errors.Join(err, before.restore(), p.old.write(p.path))
	}
	running, err := p.in.Running(ctx)
	if err != nil || !running {
		return false, err
	}
	return true, p.in.Reload(ctx)
}

// change edits the files. Former values are kept before anything is changed, and forgotten after the last change.
func (p *Plan) change(ctx context.Context) error {
	if p.Tap == "" { // a removal, which must also be possible from a Postfix that is broken
		if err := p.edit(ctx); err != nil {
			return err
		}
		return p.former.write(p.path)
	}
	if err := p.former.write(p.path); err != nil {
		return err
	}
	if err := p.edit(ctx); err != nil {
		return err
	}
	if err := p.in.Sound(ctx); err != nil {
		return fmt.Errorf("postfix does not accept the changes, so they were undone: %w", err)
	}
	return nil
}

// edit changes each file as few times as postconf allows: after every change of main.cf the next reader waits a second.
func (p *Plan) edit(ctx context.Context) error {
	edits := map[string][]string{}
	for _, c := range p.Changes {
		switch {
		case c.File == "main.cf" && c.New.Set:
			edits["-e"] = append(edits["-e"], c.Name+"="+c.New.Text)
		case c.File == "main.cf":
			edits["-X"] = append(edits["-X"], c.Name)
		case c.New.Set:
			edits["-Me"] = append(edits["-Me"], c.Name+"="+c.New.Text)
		default:
			edits["-MX"] = append(edits["-MX"], c.Name)
		}
	}
	for _, flag := range []string{"-Me", "-e", "-X", "-MX"} {
		if len(edits[flag]) == 0 {
			continue
		}
		if _, err := p.in.run(ctx, "", "postconf", append([]string{flag}, edits[flag]...)...); err != nil {
			return fmt.Errorf("cannot change the configuration of Postfix: %w", err)
		}
	}
	return nil
}

// A snapshot is what the two files held.
type snapshot map[string]savedFile

type savedFile struct {
	text []byte
	mode fs.FileMode
}

func (p *Plan) snapshot() (snapshot, error) {
	s := snapshot{}
	for _, name := range []string{"main.cf", "master.cf"} {
		path := filepath.Join(filepath.Dir(p.path), name)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration of Postfix: %w", err)
		}
		st, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration of Postfix: %w", err)
		}
		s[path] = savedFile{text, st.Mode().Perm()}
	}
	return s, nil
}

func (s snapshot) restore() error {
	var failed error
	for path, f := range s {
		if err := wholefile.Replace(path, f.text, f.mode); err != nil {
			failed = errors.Join(failed, fmt.Errorf("cannot put %s back as it was: %w", path, err))
		}
	}
	return failed
}
