package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	postfixtest "mailbag/testdata/postfix"
)

// A Line is what a connection through a Proxy is like. The zero value is a good one.
type Line struct {
	Delay time.Duration // one way; a round trip takes twice as long
	Rate  int64         // octets a second in each direction; 0 is no limit
	// After so many octets of one direction the connection is cut off, both ways and without a farewell. 0 is
	// never. A cut direction delivers that many octets and no more.
	CutUp   int64 // from who connected
	CutDown int64 // to who connected

	Heard *Heard // keeps what went up, where it is not nil
}

// Heard is what a server was sent over a line.
type Heard struct {
	mu     sync.Mutex
	octets []byte
}

// Octets are all of them so far.
func (h *Heard) Octets() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.octets)
}

func (h *Heard) add(octets []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.octets = append(h.octets, octets...)
}

// A Proxy is a TCP port through which a server is reached over a line. It keeps at most a line's worth of
// octets and some socket buffers, so a sender feels a slow receiver.
type Proxy struct {
	target   string
	listener net.Listener

	mu   sync.Mutex
	line Line
	open map[*relayed]bool
	done bool

	serving  sync.WaitGroup
	up, down atomic.Int64
}

// NewProxy listens on a port of its own for connections to target.
func NewProxy(target string, line Line) (*Proxy, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("cannot start a proxy to %s: %w", target, err)
	}
	p := &Proxy{target: target, line: line, listener: l, open: map[*relayed]bool{}}
	p.serving.Go(p.serve)
	return p, nil
}

// RunProxy is NewProxy for a test, which stops it at its end.
func RunProxy(t testing.TB, target string, line Line) *Proxy {
	t.Helper()
	p, err := NewProxy(target, line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Carried is how many octets went each way so far: from who connected, and to them.
func (p *Proxy) Carried() (up, down int64) { return p.up.Load(), p.down.Load() }

// Cut cuts every open connection off.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.cut()
	}
}

// Stop closes the port, cuts what is open and waits for it.
func (p *Proxy) Stop() {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.Cut()
	p.serving.Wait()
}

func (p *Proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.relay(conn.(*net.TCPConn)) })
	}
}

// relay carries one connection until both directions have ended.
func (p *Proxy) relay(near *net.TCPConn) {
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		abort(near)
		return
	}
	c := &relayed{near: near, far: far.(*net.TCPConn), over: make(chan struct{})}
	p.mu.Lock()
	line := p.line
	if p.done {
		c.cut()
	}
	p.open[c] = true
	p.mu.Unlock()
	if line.Rate > 0 {
		// Small buffers, or the kernel swallows for minutes of a narrow line. Where the line is wide, some of the
		// loopback's own segments of 64 kB have to fit in.
		buffer := max(smallBuffer, int(line.Rate/8))
		for _, conn := range []*net.TCPConn{c.near, c.far} {
			_ = conn.SetReadBuffer(buffer)
			_ = conn.SetWriteBuffer(buffer)
		}
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(c.far, c.near, line, direction{line.CutUp, &p.up, line.Heard}) })
	both.Go(func() { c.carry(c.near, c.far, line, direction{line.CutDown, &p.down, nil}) })
	both.Wait()
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.near.Close()
	_ = c.far.Close()
}

const (
	smallBuffer = 16 << 10
	pieceSize   = 16 << 10 // octets that are carried together, where the line has no rate
	inFlight    = 4 << 20  // octets on a line without a rate
)

// A relayed connection has two ends.
type relayed struct {
	near, far *net.TCPConn
	once      sync.Once
	over      chan struct{} // closed when it is cut
	hearing   sync.Mutex    // held while something that is to be heard is written
}

func (c *relayed) cut() {
	c.once.Do(func() {
		close(c.over)
		// What was heard has arrived, or it would not be known what the server can know.
		c.hearing.Lock()
		defer c.hearing.Unlock()
		drain(c.far)
		abort(c.near)
		abort(c.far)
	})
}

// drain waits for a moment until the receiver's kernel has everything that was written.
func drain(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for range 100 {
		unsent := int32(0)
		err := raw.Control(func(fd uintptr) {
			syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&unsent)))
		})
		if err != nil || unsent == 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// abort closes a connection with a reset: what is in its buffers is lost.
func abort(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// A piece is on the line until it is due.
type piece struct {
	octets []byte
	due    time.Time
}

// A direction is what one way of a line has for itself.
type direction struct {
	cutAfter int64
	carried  *atomic.Int64
	heard    *Heard
}

// carry is one direction. Reading and writing are apart, so that much can be on the line at once.
func (c *relayed) carry(to, from *net.TCPConn, line Line, d direction) {
	size := pieceSize
	room := inFlight / size
	if line.Rate > 0 {
		size = int(min(pieceSize, max(64, line.Rate/100)))
		room = int(line.Rate*int64(line.Delay+20*time.Millisecond)/int64(time.Second))/size + 2
	}
	onLine := make(chan piece, room)
	var writing sync.WaitGroup
	writing.Go(func() { c.deliver(to, onLine, d) })
	free := time.Now() // when the line can take the next octet
	for {
		b := make([]byte, size)
		n, err := from.Read(b)
		if n > 0 {
			now := time.Now()
			if free.Before(now) {
				free = now
			}
			if line.Rate > 0 {
				free = free.Add(time.Duration(int64(n) * int64(time.Second) / line.Rate))
			}
			select {
			case onLine <- piece{b[:n], free.Add(line.Delay)}:
			case <-c.over:
				err = net.ErrClosed
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.cut() // an end that vanished, vanishes at the other end as well
			}
			break
		}
	}
	close(onLine)
	writing.Wait()
}

// write writes octets, and has them heard where that is wanted.
func (c *relayed) write(to *net.TCPConn, octets []byte, heard *Heard) (int, error) {
	if heard == nil {
		return to.Write(octets)
	}
	c.hearing.Lock()
	defer c.hearing.Unlock()
	select {
	case <-c.over:
		return 0, net.ErrClosed
	default:
	}
	n, err := to.Write(octets)
	heard.add(octets[:n])
	return n, err
}

// deliver writes each piece when it is due, and passes the end of the stream on.
func (c *relayed) deliver(to *net.TCPConn, onLine <-chan piece, d direction) {
	total := int64(0)
	failed := false
	for p := range onLine {
		if failed {
			continue // the reader must get rid of what it has
		}
		if wait := time.Until(p.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-c.over:
			}
		}
		octets := p.octets
		cut := d.cutAfter > 0 && total+int64(len(octets)) >= d.cutAfter
		if cut {
			octets = octets[:d.cutAfter-total]
		}
		n, err := c.write(to, octets, d.heard)
		total += int64(n)
		d.carried.Add(int64(n))
		if err != nil || cut {
			c.cut() // what was written is in the receiver's buffer already
			failed = true
		}
	}
	if !failed {
		_ = to.CloseWrite()
	}
}
