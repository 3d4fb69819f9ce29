package powercut

import (
	"path/filepath"
	"slices"
	"strings"
)

// A Disk is what files are at a moment, and what would be left of them without power. Paths are relative to the directory of
// the test; of a directory they mean also all that is in it.
type Disk struct {
	root    string
	now     map[string]*file // as the kernel shows them, by path
	kept    map[string]*file // as the disk has them
	changed map[string]int   // when a name was changed that the disk may have otherwise
	torn    []string         // paths
}

// A file is one, or a directory.
type file struct {
	directory bool
	content   string // what is on the disk of what was written, in that order
	pending   []written
}

type written struct {
	end  int // of the call
	text string
}

// Lost is what a power cut would undo at a path: what is there, and would not be or without its content, and what was
// removed, and would be there again.
func (d *Disk) Lost(path string) []string {
	var lost []string
	for p, f := range d.now {
		if d.kept[p] != f || !d.survives(p) {
			lost = append(lost, p)
		}
	}
	for p := range d.kept {
		if d.now[p] == nil {
			lost = append(lost, p)
		}
	}
	return d.within(path, lost)
}

// Kept are the files at a path that would be left with all their content.
func (d *Disk) Kept(path string) []string {
	var kept []string
	for p, f := range d.kept {
		if !f.directory && d.survives(p) {
			kept = append(kept, p)
		}
	}
	return d.within(path, kept)
}

// Holds reports whether a file would be left with a text in it, of letters and digits, that was written at once.
func (d *Disk) Holds(path, text string) bool {
	f := d.kept[filepath.Join(d.root, path)]
	return f != nil && strings.Contains(f.content, text)
}

// Torn are the names at a path that files were given so far before their content was on the disk: after a power cut, the
// name can be there without the content.
func (d *Disk) Torn(path string) []string { return d.within(path, d.torn) }

// within are those of the absolute paths that are at a path.
func (d *Disk) within(path string, all []string) []string {
	top := filepath.Join(d.root, path)
	var here []string
	for _, p := range all {
		if p == top || strings.HasPrefix(p, top+"/") {
			here = append(here, strings.TrimPrefix(p, d.root+"/"))
		}
	}
	slices.Sort(here)
	return here
}

// survives reports whether the disk leads to what it has there, and has all of it.
func (d *Disk) survives(path string) bool {
	for ; path != d.root; path = filepath.Dir(path) {
		if f := d.kept[path]; f == nil || len(f.pending) > 0 {
			return false
		}
	}
	return true
}

// apply does what a call did.
func (d *Disk) apply(c call) {
	switch c.name {
	case "open", "openat", "creat":
		path := c.texts[0]
		if d.now[path] == nil && (c.name == "creat" || strings.Contains(c.args, "O_CREAT")) {
			d.name(path, &file{}, c)
		}
		if c.name == "creat" || strings.Contains(c.args, "O_TRUNC") {
			d.write(path, c)
		}
	case "mkdir", "mkdirat":
		d.name(c.texts[0], &file{directory: true}, c)
	case "rename", "renameat", "renameat2":
		from, to := c.texts[0], c.texts[1]
		f := d.now[from]
		if f != nil && len(f.pending) > 0 {
			d.torn = append(d.torn, to)
		}
		d.name(to, f, c)
		d.name(from, nil, c)
	case "unlink", "unlinkat", "rmdir":
		d.name(c.texts[0], nil, c)
	case "truncate":
		d.write(c.texts[0], c)
	case "copy_file_range", "splice":
		d.write(c.files[1], c)
	case "fsync", "fdatasync":
		d.sync(c.files[0], c)
	default:
		d.write(c.files[0], c)
	}
}

// name lets a path lead to a file, or to none.
func (d *Disk) name(path string, f *file, c call) {
	if !strings.HasPrefix(path, d.root+"/") {
		return
	}
	if f == nil {
		delete(d.now, path)
	} else {
		d.now[path] = f
	}
	d.changed[path] = c.end
}

func (d *Disk) write(path string, c call) {
	if f := d.now[path]; f != nil {
		f.pending = append(f.pending, written{c.end, strings.Join(c.texts, "")})
	}
}

// sync brings to the disk what was done before the call began.
func (d *Disk) sync(path string, c call) {
	if f := d.now[path]; f != nil {
		for len(f.pending) > 0 && f.pending[0].end < c.begin {
			f.content += f.pending[0].text
			f.pending = f.pending[1:]
		}
	}
	for entry, at := range d.changed {
		if filepath.Dir(entry) != path || at > c.begin {
			continue
		}
		if f := d.now[entry]; f != nil {
			d.kept[entry] = f
		} else {
			delete(d.kept, entry)
		}
		delete(d.changed, entry)
	}
}
