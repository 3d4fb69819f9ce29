package exim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mailbag/cmd/internal/mta"
)

// try makes the configuration that the files would come to, in a place of its own, and has Exim read it. The error says
// what in the host's own stands against it.
func (in Instance) try(ctx context.Context, files []file) error {
	dir, err := os.MkdirTemp("", "mailbag-exim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	made, err := in.generated(ctx, dir, files)
	var disk *fs.PathError
	switch {
	case err == nil:
		return made.wired(ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &disk):
		return fmt.Errorf("the changes cannot be tried, so nothing was changed: %w", err)
	}
	if broken := in.broken(ctx); broken != nil {
		return broken
	}
	return refused(err)
}

// broken returns nil where Exim takes the configuration without our parts. The error is mta.ErrBroken.
func (in Instance) broken(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mailbag-exim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := in.newPlan()
	if err = p.unwire(); err == nil {
		_, err = in.generated(ctx, dir, p.files)
	}
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w, without mailbag as well: what is in %s does not make one that Exim takes; nothing was changed, repair it first: %w", mta.ErrBroken, confdir, err)
}

// generated is this Exim with the configuration that the files would come to, which it accepts. It is kept in dir.
func (in Instance) generated(ctx context.Context, dir string, files []file) (Instance, error) {
	if err := duplicate(dir); err != nil {
		return in, err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.path)
		if f.new == nil {
			if err := os.RemoveAll(path); err != nil {
				return in, err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return in, err
		}
		if err := os.WriteFile(path, f.new, 0o600); err != nil {
			return in, err
		}
	}
	whole := filepath.Join(dir, "whole")
	if err := generate(ctx, "-d", dir, "-o", whole); err != nil {
		return in, err
	}
	text, err := os.ReadFile(whole)
	if err != nil {
		return in, err
	}
	for _, p := range parts {
		text = bytes.ReplaceAll(text, []byte(p.include()), []byte(".include_if_exists "+filepath.Join(dir, p.path)))
	}
	if err := os.WriteFile(whole, text, 0o600); err != nil {
		return in, err
	}
	made, err := in.with(whole)
	if err != nil {
		return in, err
	}
	_, err = made.run(ctx, nil, "-bV")
	return made, err
}

// duplicate copies what Debian makes the configuration of. Links come as what they lead to, or not at all.
func duplicate(dir string) error {
	all, err := filepath.Glob(confdir + "/conf.d/*/*")
	if err != nil {
		return err
	}
	for _, name := range []string{answers, template, "exim4.conf.localmacros"} {
		all = append(all, filepath.Join(confdir, name))
	}
	for _, path := range all {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, confdir))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// with is this Exim with another configuration.
func (in Instance) with(path string) (Instance, error) {
	line := in.Command
	if len(line) == 0 {
		exim, err := program()
		if err != nil {
			return in, err
		}
		line = []string{exim}
	}
	in.Command = append(line[:len(line):len(line)], "-C", path)
	return in, nil
}

// wraps are the options that the wiring sets itself, and the macro by which it takes in what a host has there; without one
// it leaves no place for another.
var wraps = map[string]string{
	"acl_smtp_rcpt": "MAIN_ACL_CHECK_RCPT", "acl_smtp_data": "MAIN_ACL_CHECK_DATA",
	"acl_smtp_data_prdr": "MAILBAG_HOST_PRDR", "acl_smtp_notquit": "MAILBAG_HOST_NOTQUIT", "acl_smtp_etrn": "MAILBAG_HOST_ETRN",
	"acl_not_smtp_start": "MAILBAG_HOST_START", "acl_not_smtp": "MAILBAG_HOST_NOT_SMTP",
	"smtp_etrn_command": "", "smtp_etrn_serialize": "", "delay_warning_condition": "",
}

var (
	twice   = regexp.MustCompile(`"?(\w+)"? option set for the second time|option "?(\w+)"? set for the second time`)
	defined = regexp.MustCompile(`macro "?(MAIN_\w+)"? is already defined`)
)

// refused puts into words what Exim says of a configuration with our parts.
func refused(err error) error {
	if m := twice.FindStringSubmatch(err.Error()); m != nil {
		if option := m[1] + m[2]; isWrapped(option) {
			return fmt.Errorf("nothing was changed: %s", wayOut(option, places(option)))
		}
	}
	if m := defined.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("nothing was changed: %s defines %s behind mailbag's part; define it in a file that comes before, such as %s/conf.d/main/00_local",
			places(m[1]), m[1], confdir)
	}
	return fmt.Errorf("exim does not accept the changes, so nothing was changed: %w", err)
}

func isWrapped(option string) bool { _, ok := wraps[option]; return ok }

// wayOut says what to do about an option that the host sets and mailbag needs.
func wayOut(option, where string) string {
	if macro := wraps[option]; macro != "" {
		return fmt.Sprintf("%s sets %s, which mailbag needs for an ACL of its own; write %s in place of %s there, and mailbag asks that ACL first",
			where, option, macro, option)
	}
	return fmt.Sprintf("%s sets %s, which mailbag needs for itself; take it out", where, option)
}

// debians is what Debian's own lines have for the options and macros that mailbag takes in.
var debians = regexp.MustCompile(`=\s*(MAIN_ACL_CHECK|acl_check)_\w+\s*$`)

// places are where the host's own lines begin with a name.
func places(name string) string {
	line := regexp.MustCompile(`^\s*` + regexp.QuoteMeta(name) + `\s*=`)
	files := []string{confdir + "/exim4.conf.localmacros", confdir + "/" + template}
	if parted, err := split(); err == nil && parted {
		files, _ = filepath.Glob(confdir + "/conf.d/main/*")
	}
	var found []string
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil || ourPath(path) {
			continue
		}
		for i, l := range strings.Split(string(text), "\n") {
			if line.MatchString(l) && !debians.MatchString(l) {
				found = append(found, fmt.Sprintf("%s:%d", path, i+1))
			}
		}
	}
	if len(found) == 0 {
		return "the configuration of Exim"
	}
	return strings.Join(found, " or ")
}

func ourPath(path string) bool {
	return slices.Contains(paths(), strings.TrimPrefix(path, confdir+"/"))
}

// ourACLs are the options by which Exim asks mailbag, and what they are.
var ourACLs = []struct{ option, acl string }{
	{"acl_smtp_rcpt", "acl_mailbag_rcpt"}, {"acl_smtp_data", "acl_mailbag_data"}, {"acl_smtp_data_prdr", "acl_mailbag_prdr"},
	{"acl_smtp_notquit", "acl_mailbag_notquit"}, {"acl_smtp_etrn", "acl_mailbag_etrn"},
	{"acl_not_smtp_start", "acl_mailbag_not_smtp_start"}, {"acl_not_smtp", "acl_mailbag_not_smtp"},
}

// wired returns nil where all of our ACLs are in force.
func (in Instance) wired(ctx context.Context) error {
	var names []string
	for _, o := range ourACLs {
		names = append(names, o.option)
	}
	now, err := in.options(ctx, names...)
	if err != nil {
		return err
	}
	for _, o := range ourACLs {
		if now[o.option] != o.acl {
			return fmt.Errorf("%s is %q instead of %s: %s", o.option, now[o.option], o.acl, wayOut(o.option, places(o.option)))
		}
	}
	return nil
}
