// Package blackout is a file system for tests that forgets, when the power fails, what was not synced.
//
// It is in memory and mounted with FUSE, so that any program can be run on it ([Mount]). The power fails at a moment
// ([Mounted.Fail]), while programs write; then there is what a disk would have ([Mounted.Return]): all that was synced, and of the rest what
// chance keeps. Of a file that is any of the writes since its last fsync, in any order of their sectors, also parts of one;
// of a directory any of the names that it was given or lost. A rename is never half done so that nothing is left of the file.
// Modes, owners and times are never forgotten.
//
// It is as forgetful as POSIX permits: a new name in a directory stays after an fsync of that directory alone. With
// [Options].Journal it is so after one of the file, too.
//
// Package powercut tells of single steps what they leave at any moment; this one tells of whole programs under load.
package blackout

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Options of a [Disk]. The zero value is that of one as forgetful as POSIX permits.
type Options struct {
	// Journal is that of ext4, XFS or Btrfs: an fsync of a file keeps its names as well, and those of the directories that
	// lead to it.
	Journal bool

	// Sync is the mount option: all that is written is on the disk at once.
	Sync bool
}

// A disk has files, and what is not sure of them. Its lock is over all of it: a cut is at one moment.
type disk struct {
	opt Options

	mu      sync.Mutex
	left    int           // so many times until the power fails; 0: it stays
	dead    chan struct{} // closed when it has failed
	root    *node
	last    uint64 // number of an inode or a change
	changes []*change
}

// A node is a file or a directory.
type node struct {
	inode          uint64
	mode, uid, gid uint32
	modified       time.Time
	links          uint32

	// Of a file: its content as the kernel shows it and as the disk has it, and what was done to that since.
	now, kept []byte
	writes    []write

	// Of a directory, by name, and which change the disk has last seen of a name.
	names, keptNames map[string]*node
	seen             map[string]uint64
}

// A write puts octets at an offset of a file, or cuts or extends it to a size, without octets.
type write struct {
	at   int64
	data []byte // nil: at is the size
}

// A change is one of names, in one directory or two, that the disk does at once or not at all.
type change struct{ parts []part }

// A part of a change lets a name in a directory lead to a node, or to nothing.
type part struct {
	dir    *node
	name   string
	to     *node
	change uint64 // number of the change
}

func newDisk(opt Options) *disk {
	d := &disk{opt: opt, dead: make(chan struct{})}
	d.root = d.node(syscall.S_IFDIR|0o755, 0, 0)
	d.root.links = 1
	return d
}

func (d *disk) failed() bool {
	select {
	case <-d.dead:
		return true
	default:
		return false
	}
}

func (d *disk) node(mode, uid, gid uint32) *node {
	d.last++
	n := &node{inode: d.last, mode: mode, uid: uid, gid: gid, modified: time.Now()}
	if n.directory() {
		n.names, n.keptNames, n.seen = map[string]*node{}, map[string]*node{}, map[string]uint64{}
	}
	return n
}

func (n *node) directory() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// apply does a write to a content.
func (w write) apply(content []byte) []byte {
	end := w.at + int64(len(w.data))
	if w.data == nil && end < int64(len(content)) {
		return content[:end]
	}
	if grow := end - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[w.at:], w.data)
	return content
}

// write does it to what the kernel shows.
func (n *node) write(w write) {
	n.now = w.apply(n.now)
	n.writes = append(n.writes, w)
	n.modified = time.Now()
}

// change does a change to what the kernel shows.
func (d *disk) change(parts ...part) {
	d.last++
	for i, p := range parts {
		parts[i].change = d.last
		if old := p.dir.names[p.name]; old != nil {
			old.links--
		}
		if p.to == nil {
			delete(p.dir.names, p.name)
		} else {
			p.dir.names[p.name] = p.to
			p.to.links++
		}
		p.dir.modified = time.Now()
	}
	d.changes = append(d.changes, &change{parts})
}

// sync brings a file or a directory to the disk.
func (d *disk) sync(n *node) {
	if n.directory() {
		d.keep(func(p part) bool { return p.dir == n })
		return
	}
	for _, w := range n.writes {
		n.kept = w.apply(n.kept)
	}
	n.writes = nil
	if d.opt.Journal {
		above := map[*node]bool{n: true}
		for _, c := range slices.Backward(d.changes) { // a directory has its name before there is one in it
			for _, p := range c.parts {
				if above[p.to] {
					above[p.dir] = true
				}
			}
		}
		d.keep(func(p part) bool { return above[p.to] })
	}
}

// keep brings the parts of changes that are meant to the disk. The new name of a file is there no later than the old one
// is gone; with a journal both are done at once.
func (d *disk) keep(meant func(part) bool) {
	var rest []*change
	for _, c := range d.changes {
		if slices.ContainsFunc(c.parts, func(p part) bool { return meant(p) && (p.to == nil || d.opt.Journal) }) {
			c.settle()
			continue
		}
		var unsure []part
		for _, p := range c.parts {
			if meant(p) {
				p.settle()
			} else {
				unsure = append(unsure, p)
			}
		}
		if c.parts = unsure; len(unsure) > 0 {
			rest = append(rest, c)
		}
	}
	d.changes = rest
}

func (c *change) settle() {
	for _, p := range c.parts {
		p.settle()
	}
}

// settle brings a part to the disk, which may have seen a later one.
func (p part) settle() {
	if p.change < p.dir.seen[p.name] {
		return
	}
	p.dir.seen[p.name] = p.change
	if p.to == nil {
		delete(p.dir.keptNames, p.name)
	} else {
		p.dir.keptNames[p.name] = p.to
	}
}

// settle brings all to the disk, as the kernel does by itself within half a minute.
func (d *disk) settle() {
	for _, c := range d.changes {
		c.settle()
	}
	d.changes = nil
	d.root.settle(map[*node]bool{})
}

func (n *node) settle(done map[*node]bool) {
	if done[n] {
		return
	}
	done[n] = true
	for _, w := range n.writes {
		n.kept = w.apply(n.kept)
	}
	n.writes = nil
	for _, child := range n.names {
		child.settle(done)
	}
}

// after is the disk that is there when the power comes back.
func (d *disk) after(chance *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	odds := luck(chance)
	for _, c := range d.changes {
		if chance.Float64() < odds {
			c.settle()
		}
	}
	after := newDisk(d.opt)
	after.last, after.root = d.last, d.root.after(chance, map[*node]*node{})
	return after
}

// luck is how much of what is unsure stays: nothing, all, or in between.
func luck(chance *rand.Rand) float64 { return []float64{0, 0.1, 0.5, 0.9, 1}[chance.IntN(5)] }

// after is the node that the disk leaves of one, and of those in it.
func (n *node) after(chance *rand.Rand, known map[*node]*node) *node {
	l := known[n]
	if l == nil {
		l = &node{inode: n.inode, mode: n.mode, uid: n.uid, gid: n.gid, modified: n.modified}
		known[n] = l
		if n.directory() {
			l.names, l.keptNames, l.seen = map[string]*node{}, map[string]*node{}, map[string]uint64{}
			for _, name := range slices.Sorted(maps.Keys(n.keptNames)) {
				child := n.keptNames[name].after(chance, known)
				l.names[name], l.keptNames[name] = child, child
			}
		} else {
			l.kept = n.torn(chance)
			l.now = slices.Clone(l.kept)
		}
	}
	l.links++
	return l
}

// torn is the content that the disk leaves: each sector of each write may be there, and a file may have grown for what is not.
func (n *node) torn(chance *rand.Rand) []byte {
	content, odds := slices.Clone(n.kept), luck(chance)
	whole := chance.IntN(2) == 0 // of a write all is there, or nothing
	for _, w := range n.writes {
		if whole || w.data == nil {
			if chance.Float64() < odds {
				content = w.apply(content)
			}
			continue
		}
		for at := w.at; at < w.at+int64(len(w.data)); {
			end := min((at/sector+1)*sector, w.at+int64(len(w.data)))
			if chance.Float64() < odds {
				content = write{at, w.data[at-w.at : end-w.at]}.apply(content)
			}
			at = end
		}
	}
	return content
}
