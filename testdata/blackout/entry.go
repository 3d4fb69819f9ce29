package blackout

import (
	"context"
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// entry is what the kernel knows of a node.
type entry struct {
	fs.Inode
	disk *disk
	node *node
}

var _ interface {
	fs.NodeLookuper
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeReaddirer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeAllocater
	fs.NodeFsyncer
	fs.NodeCreater
	fs.NodeMkdirer
	fs.NodeMknoder
	fs.NodeLinker
	fs.NodeUnlinker
	fs.NodeRmdirer
	fs.NodeRenamer
	fs.NodeStatfser
} = (*entry)(nil)

// see reads the disk, which may have no power.
func (e *entry) see(something func() syscall.Errno) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if e.disk.failed() {
		return syscall.EIO
	}
	return something()
}

// do does something to the disk, at which the power may fail.
func (e *entry) do(something func() syscall.Errno) syscall.Errno {
	return e.see(func() syscall.Errno {
		if e.disk.left--; e.disk.left == 0 {
			close(e.disk.dead)
			return syscall.EIO
		}
		errno := something()
		if e.disk.opt.Sync {
			e.disk.sync(e.node)
			e.disk.keep(func(part) bool { return true })
		}
		return errno
	})
}

func (e *entry) describe(n *node, out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Owner = n.inode, n.mode, n.links, fuse.Owner{Uid: n.uid, Gid: n.gid}
	out.Size = uint64(len(n.now))
	out.Blocks = (out.Size + sector - 1) / sector
	out.SetTimes(&n.modified, &n.modified, &n.modified)
}

// child tells the kernel of a node.
func (e *entry) child(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	e.describe(n, &out.Attr)
	return e.NewInode(ctx, &entry{disk: e.disk, node: n}, fs.StableAttr{Mode: n.mode, Ino: n.inode})
}

func (e *entry) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (found *fs.Inode, _ syscall.Errno) {
	return found, e.see(func() syscall.Errno {
		n := e.node.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		found = e.child(ctx, n, out)
		return 0
	})
}

func (e *entry) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return e.see(func() syscall.Errno {
		e.describe(e.node, &out.Attr)
		return 0
	})
}

func (e *entry) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return e.do(func() syscall.Errno {
		n := e.node
		if size, ok := in.GetSize(); ok {
			n.write(write{at: int64(size)})
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if at, ok := in.GetMTime(); ok {
			n.modified = at
		}
		e.describe(n, &out.Attr)
		return 0
	})
}

func (e *entry) Readdir(context.Context) (list fs.DirStream, _ syscall.Errno) {
	return list, e.see(func() syscall.Errno {
		var all []fuse.DirEntry
		for _, name := range slices.Sorted(maps.Keys(e.node.names)) {
			n := e.node.names[name]
			all = append(all, fuse.DirEntry{Name: name, Ino: n.inode, Mode: n.mode})
		}
		list = fs.NewListDirStream(all)
		return 0
	})
}

func (e *entry) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, e.see(func() syscall.Errno { return 0 })
}

func (e *entry) Read(_ context.Context, _ fs.FileHandle, into []byte, at int64) (read fuse.ReadResult, _ syscall.Errno) {
	return read, e.see(func() syscall.Errno {
		n := 0
		if at < int64(len(e.node.now)) {
			n = copy(into, e.node.now[at:])
		}
		read = fuse.ReadResultData(into[:n])
		return 0
	})
}

func (e *entry) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	return uint32(len(data)), e.do(func() syscall.Errno {
		if len(data) > 0 {
			e.node.write(write{at, slices.Clone(data)})
		}
		return 0
	})
}

// Allocate extends a file; what it has stays.
func (e *entry) Allocate(_ context.Context, _ fs.FileHandle, at, size uint64, mode uint32) syscall.Errno {
	return e.do(func() syscall.Errno {
		if mode != 0 {
			return syscall.EOPNOTSUPP
		}
		if end := int64(at + size); end > int64(len(e.node.now)) {
			e.node.write(write{at: end})
		}
		return 0
	})
}

func (e *entry) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return e.do(func() syscall.Errno {
		e.disk.sync(e.node)
		return 0
	})
}

// make makes a node with a name in the directory. In one that is set-group-ID it gets that group.
func (e *entry) make(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (made *fs.Inode, _ syscall.Errno) {
	return made, e.do(func() syscall.Errno {
		if e.node.names[name] != nil {
			return syscall.EEXIST
		}
		var uid, gid uint32
		if caller, ok := fuse.FromContext(ctx); ok {
			uid, gid = caller.Uid, caller.Gid
		}
		if e.node.mode&syscall.S_ISGID != 0 {
			gid = e.node.gid
			if mode&syscall.S_IFMT == syscall.S_IFDIR {
				mode |= syscall.S_ISGID
			}
		}
		n := e.disk.node(mode, uid, gid)
		e.disk.change(part{dir: e.node, name: name, to: n})
		made = e.child(ctx, n, out)
		return 0
	})
}

func (e *entry) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, errno := e.make(ctx, name, mode|syscall.S_IFREG, out)
	return made, nil, 0, errno
}

func (e *entry) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return e.make(ctx, name, mode|syscall.S_IFDIR, out)
}

func (e *entry) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return e.make(ctx, name, mode, out)
}

func (e *entry) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (linked *fs.Inode, _ syscall.Errno) {
	return linked, e.do(func() syscall.Errno {
		if e.node.names[name] != nil {
			return syscall.EEXIST
		}
		n := target.(*entry).node
		e.disk.change(part{dir: e.node, name: name, to: n})
		linked = e.child(ctx, n, out)
		return 0
	})
}

func (e *entry) Unlink(_ context.Context, name string) syscall.Errno {
	return e.do(func() syscall.Errno {
		if e.node.names[name] == nil {
			return syscall.ENOENT
		}
		e.disk.change(part{dir: e.node, name: name})
		return 0
	})
}

func (e *entry) Rmdir(_ context.Context, name string) syscall.Errno {
	return e.do(func() syscall.Errno {
		n := e.node.names[name]
		switch {
		case n == nil:
			return syscall.ENOENT
		case len(n.names) > 0:
			return syscall.ENOTEMPTY
		}
		e.disk.change(part{dir: e.node, name: name})
		return 0
	})
}

func (e *entry) Rename(_ context.Context, name string, to fs.InodeEmbedder, as string, flags uint32) syscall.Errno {
	return e.do(func() syscall.Errno {
		into := to.(*entry).node
		n, old := e.node.names[name], into.names[as]
		switch {
		case n == nil:
			return syscall.ENOENT
		case flags&fs.RENAME_EXCHANGE != 0:
			return syscall.EINVAL
		case flags != 0 && old != nil:
			return syscall.EEXIST
		case old == n:
			return 0
		case old != nil && len(old.names) > 0:
			return syscall.ENOTEMPTY
		}
		e.disk.change(part{dir: e.node, name: name}, part{dir: into, name: as, to: n})
		return 0
	})
}

// Statfs says that there is room: some programs look.
func (e *entry) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return e.see(func() syscall.Errno {
		out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
		out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = 1<<24, 1<<23, 1<<23, 1<<24, 1<<23
		return 0
	})
}
