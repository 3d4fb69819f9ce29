package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"mailbag/cmd/internal/wholefile"
)

// Apply makes the changes and reloads Postfix if it runs, which it reports. When a step fails, or Postfix's own check
// then does, main.cf and master.cf are put back as they were. Needs root.
func (p *plan) Apply(ctx context.Context) (reloaded bool, err error) {
	before, err := p.snapshot()
	if err != nil {
		return false, err
	}
	originals := p.old.originals(before, p.wired)
	p.former.keep(originals, before)
	if p.Empty() {
		return false, p.former.write(p.path)
	}
	if err := p.change(ctx, before, originals); err != nil {
		return false, errors.Join(err, before.restore(), p.old.write(p.path))
	}
	running, err := p.in.Running(ctx)
	if err != nil || !running {
		return false, err
	}
	return true, p.in.Reload(ctx)
}

// change edits the files. Former values are kept before anything is changed, and forgotten after the last change.
func (p *plan) change(ctx context.Context, before snapshot, originals map[string]string) error {
	if p.remove {
		if err := p.edit(ctx, before); err != nil {
			return err
		}
		if err := before.of(originals).restore(); err != nil {
			return err
		}
		return p.former.write(p.path)
	}
	if p.tables != "" {
		if err := p.tables.Complete(); err != nil {
			return err
		}
	}
	if err := p.former.write(p.path); err != nil {
		return err
	}
	if err := p.edit(ctx, before); err != nil {
		return err
	}
	after, err := p.snapshot()
	if err != nil {
		return err
	}
	p.former.keep(originals, after)
	if err := p.former.write(p.path); err != nil {
		return err
	}
	if p.tables == "" {
		return nil // to stand aside and to step in has to be possible on a Postfix with a fault of its own
	}
	if err := p.in.Sound(ctx); err != nil {
		return fmt.Errorf("postfix does not accept the changes, so they were undone: %w", err)
	}
	return nil
}

// edit changes each file as few times as postconf allows: after every change of main.cf the next reader waits a second.
func (p *plan) edit(ctx context.Context, before snapshot) error {
	if err := before.endLines(); err != nil {
		return err
	}
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
	for path, f := range before { // postconf lets everybody read what it writes
		if err := os.Chmod(path, f.mode); err != nil {
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

func (p *plan) snapshot() (snapshot, error) {
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

// of is a snapshot of the files that have such a text, with it.
func (s snapshot) of(texts map[string]string) snapshot {
	out := snapshot{}
	for path, f := range s {
		if text, ok := texts[filepath.Base(path)]; ok {
			out[path] = savedFile{[]byte(text), f.mode}
		}
	}
	return out
}

// endLines ends the last line of each file, to which postconf would append the next parameter otherwise.
func (s snapshot) endLines() error {
	for path, f := range s {
		if len(f.text) == 0 || bytes.HasSuffix(f.text, []byte("\n")) {
			continue
		}
		if err := wholefile.Replace(path, append(slices.Clone(f.text), '\n'), f.mode); err != nil {
			return fmt.Errorf("cannot change the configuration of Postfix: %w", err)
		}
	}
	return nil
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
