package exim

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/wholefile"
)

// A plan is a set of files to change.
type plan struct {
	in     Instance
	files  []file
	since  time.Time
	broken bool // Exim did not take the configuration before: what makes it less ours need not make it good
	owed   bool // a former run was killed before Exim read what it wrote
}

// unfinished is there while changes are made.
const unfinished = "/run/mailbag-exim.unfinished"

func (in Instance) newPlan() *plan { return &plan{in: in, owed: there(unfinished)} }

// Plan computes what setup would change, and has Exim try it.
func (in Instance) Plan(ctx context.Context, n mta.Needs) (mta.Plan, error) {
	if err := in.debian(); err != nil {
		return nil, advise(err, n)
	}
	if err := in.recent(ctx); err != nil {
		return nil, err
	}
	p, err := in.plan(n)
	if err != nil {
		return nil, err
	}
	if !p.Empty() {
		if err := in.try(ctx, p.files); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Fits is [mta.Wiring.Fits].
func (in Instance) Fits(_ context.Context, n mta.Needs) (bool, error) {
	if err := in.debian(); err != nil {
		return false, err
	}
	p, err := in.plan(n)
	return err == nil && p.Empty(), err
}

// advise adds to the error of a foreign configuration what is to go where.
func advise(err error, n mta.Needs) error {
	var foreign foreignError
	if !errors.As(err, &foreign) {
		return err
	}
	text, err := blocks(n)
	if err != nil {
		return err
	}
	foreign.advice = `put these blocks where they belong; in place of your acl_smtp_rcpt and acl_smtp_data define MAIN_ACL_CHECK_RCPT and MAIN_ACL_CHECK_DATA ` +
		`before the first and write "acl_smtp_rcpt = MAIN_ACL_CHECK_RCPT" and "acl_smtp_data = MAIN_ACL_CHECK_DATA" behind it; put +mailbag_domains into the ` +
		`domains that may be relayed to, reload Exim, and run "mailbag exim check"` + "\n" + text
	return foreign
}

func (in Instance) plan(n mta.Needs) (*plan, error) {
	p := in.newPlan()
	main, err := read(parts[0].path)
	if err != nil {
		return nil, err
	}
	p.since = asideIn(string(main))
	for _, part := range slices.Backward(parts) { // the others mean nothing before the main one is there
		text, err := part.text(n, p.since)
		if err != nil {
			return nil, err
		}
		if err := p.add(part.path, func([]byte) ([]byte, error) { return []byte(text), nil }); err != nil {
			return nil, err
		}
	}
	parted, err := split()
	if err != nil {
		return nil, err
	}
	return p, p.include(!parted)
}

// include has the template include our parts, or not.
func (p *plan) include(wired bool) error {
	return p.add(template, func(old []byte) ([]byte, error) {
		if old == nil && !wired {
			return nil, nil
		}
		text, err := included(string(old), wired)
		return []byte(text), err
	})
}

// add plans for one file what it is to be.
func (p *plan) add(path string, become func(old []byte) ([]byte, error)) error {
	old, err := read(path)
	if err != nil {
		return err
	}
	fresh, err := become(old)
	if err != nil {
		return err
	}
	if f := (file{path, old, fresh}); f.changes() {
		p.files = append(p.files, f)
	}
	return nil
}

// PlanRemoval computes what taking the wiring back would change. Our files go, and our lines of the template.
func (in Instance) PlanRemoval(ctx context.Context, _ mta.Needs) (mta.Plan, error) {
	p := in.newPlan()
	if err := in.debian(); err != nil {
		var foreign foreignError
		if !errors.As(err, &foreign) {
			return nil, err
		}
		if macros, err := in.options(ctx, "macros"); err == nil && macros[wiredMacro] != "" {
			foreign.advice = "take mailbag's blocks out of it by hand, and reload Exim"
			return nil, foreign
		}
		return p, nil
	}
	p.broken = in.recent(ctx) != nil
	return p, p.unwire()
}

// unwire plans to take away what is ours.
func (p *plan) unwire() error {
	for _, part := range parts {
		if err := p.add(part.path, func([]byte) ([]byte, error) { return nil, nil }); err != nil {
			return err
		}
	}
	return p.include(false)
}

// PlanAside computes what puts off the accounts' mail without asking mailbag-policyd. Others' mail does not ask it anyway.
func (in Instance) PlanAside(ctx context.Context, since time.Time) (mta.Plan, error) {
	return in.planStance(ctx, since)
}

// PlanIn computes what ends a PlanAside.
func (in Instance) PlanIn(ctx context.Context) (mta.Plan, error) {
	return in.planStance(ctx, time.Time{})
}

func (in Instance) planStance(ctx context.Context, since time.Time) (mta.Plan, error) {
	if err := in.debian(); err != nil {
		var foreign foreignError
		if errors.As(err, &foreign) {
			foreign.advice = "write the line" + asideLine(time.Now()) + "\nbehind MAILBAG_DELIVER in it, or take that line out, and reload Exim"
			return nil, foreign
		}
		return nil, err
	}
	main, err := read(parts[0].path)
	if err != nil {
		return nil, err
	}
	if main == nil {
		return nil, fmt.Errorf("%w; run: mailbag exim setup", mta.ErrNotWired)
	}
	if already := asideIn(string(main)); !since.IsZero() && !already.IsZero() {
		since = already
	}
	p := in.newPlan()
	p.since, p.broken = since, in.recent(ctx) != nil
	return p, p.add(parts[0].path, func(old []byte) ([]byte, error) { return []byte(withAside(string(old), since)), nil })
}

func (p *plan) Empty() bool { return len(p.files) == 0 && !p.owed }

func (p *plan) AsideSince() time.Time { return p.since }

func (p *plan) Diff() string {
	var out strings.Builder
	for _, f := range p.files {
		out.WriteString(diff(filepath.Join(confdir, f.path), string(f.old), string(f.new)))
	}
	if p.owed {
		fmt.Fprintf(&out, "%s\n  is made again, because a former run was ended before Exim read it\n", generated)
	}
	return out.String()
}

// Apply writes the files, has Debian make the configuration of them, and Exim read it.
func (p *plan) Apply(ctx context.Context) (reloaded bool, err error) {
	if p.Empty() {
		return false, nil
	}
	if err := os.WriteFile(unfinished, nil, 0o600); err != nil {
		return false, fmt.Errorf("nothing was changed: %w", err)
	}
	if err := p.change(ctx); err != nil {
		return false, err
	}
	if p.broken {
		if err := p.in.recent(ctx); err != nil {
			return false, fmt.Errorf("the files were changed, but Exim's daemon was not told, because it would end: %w", err)
		}
	}
	if reloaded, err = p.in.reload(ctx); err != nil {
		return reloaded, err
	}
	return reloaded, p.finish()
}

// finish takes away what only a run that was killed leaves.
func (p *plan) finish() error {
	for _, path := range append([]string{template}, paths()...) {
		torn, err := filepath.Glob(filepath.Join(confdir, filepath.Dir(path), "."+filepath.Base(path)+"."+strings.Repeat("[A-Z2-7]", len(rand.Text()))))
		if err != nil {
			return err
		}
		for _, t := range torn {
			if err := os.Remove(t); err != nil {
				return err
			}
		}
	}
	return os.Remove(unfinished)
}

func (p *plan) change(ctx context.Context) error {
	var begun []file
	made := false
	undo := func(cause error) error {
		var failed error
		for _, f := range slices.Backward(begun) {
			if now, err := read(f.path); err == nil && !(file{old: now, new: f.old}).changes() {
				continue
			}
			if err := put(file{f.path, f.new, f.old}); err != nil {
				failed = errors.Join(failed, fmt.Errorf("cannot put %s back as it was: %w", f.path, err))
			}
		}
		if made {
			failed = errors.Join(failed, generate(context.WithoutCancel(ctx)))
		}
		if failed == nil {
			failed = p.finish()
		}
		return errors.Join(cause, failed)
	}
	for _, f := range p.files {
		begun = append(begun, f)
		if err := put(f); err != nil {
			return undo(fmt.Errorf("cannot change the configuration of Exim, so nothing was changed: %w", err))
		}
	}
	err := generate(ctx)
	made = err == nil || ctx.Err() != nil
	if err == nil {
		err = p.in.recent(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return undo(fmt.Errorf("the changes were undone: %w", ctx.Err()))
	case err == nil, p.broken:
		return nil
	}
	return undo(fmt.Errorf("exim does not accept the changes, so they were undone: %w", err))
}

// put writes one file whole, with the owner and mode of the one that was there, or removes it.
func put(f file) error {
	path := filepath.Join(confdir, f.path)
	if f.new == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode, uid, gid := fs.FileMode(0o644), os.Geteuid(), os.Getegid()
	if st, err := os.Stat(path); err == nil {
		was := st.Sys().(*syscall.Stat_t)
		mode, uid, gid = st.Mode().Perm(), int(was.Uid), int(was.Gid)
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return wholefile.ReplaceIn(dir, filepath.Base(path), bytes.NewReader(f.new), mode, func(tmp *os.File) error { return tmp.Chown(uid, gid) })
}
