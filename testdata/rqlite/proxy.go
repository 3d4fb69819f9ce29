package rqlitetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	postfixtest "mailbag/testdata/postfix"
)

// A Network lies between the machines of nodes, and can be cut from each to each, in one direction alone too. What is cut is like
// packets that are lost: connections stay, and what was written to them arrives once the way is mended. Those that are made
// meanwhile come to nothing then.
type Network struct {
	nodes []*Node

	mu      sync.Mutex
	changed *sync.Cond
	cut     map[way]bool
	open    map[net.Conn]bool
	done    bool

	listeners []net.Listener
	serving   sync.WaitGroup
}

// A way is from one machine to another, by the numbers of their nodes.
type way struct{ from, to int }

func newNetwork() *Network {
	n := &Network{cut: map[way]bool{}, open: map[net.Conn]bool{}}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// Cut loses what machines send to others from now on.
func (n *Network) Cut(from, to []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range from {
		for _, t := range to {
			if f != t {
				n.cut[way{f, t}] = true
			}
		}
	}
}

// Mend ends all cuts.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.changed.Broadcast()
}

// Stop ends all connections, and waits for that.
func (n *Network) Stop() {
	n.mu.Lock()
	n.done = true
	for c := range n.open {
		_ = c.Close()
	}
	n.changed.Broadcast()
	n.mu.Unlock()
	for _, l := range n.listeners {
		_ = l.Close()
	}
	n.serving.Wait()
}

// await waits until ways are not cut; waited is whether any was. false: the network has ended.
func (n *Network) await(ways ...way) (waited, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.done && slices.ContainsFunc(ways, func(w way) bool { return n.cut[w] }) {
		waited = true
		n.changed.Wait()
	}
	return waited, !n.done
}

// hold has Stop close a connection. It is false after that.
func (n *Network) hold(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.done {
		n.open[c] = true
	}
	return !n.done
}

func (n *Network) release(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, c)
	_ = c.Close()
}

// listen returns an address by which others reach a port of a machine. from tells whose a connection is.
func (n *Network) listen(to int, target string, from func(net.Conn) (int, error)) (string, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	n.listeners = append(n.listeners, l)
	n.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() {
				defer conn.Close()
				if from, err := from(conn); err == nil { // else it is gone again
					n.relay(conn, target, from, to)
				}
			})
		}
	})
	return l.Addr().String(), nil
}

// relay carries one connection until both directions have ended.
func (n *Network) relay(near net.Conn, target string, from, to int) {
	if !n.hold(near) {
		return
	}
	defer n.release(near)
	there, back := way{from, to}, way{to, from}
	if waited, ok := n.await(there, back); waited || !ok {
		return
	}
	far, err := net.Dial("tcp", target)
	if err != nil || !n.hold(far) {
		return
	}
	defer n.release(far)
	var both sync.WaitGroup
	both.Go(func() { n.carry(far, near, there) })
	both.Go(func() { n.carry(near, far, back) })
	both.Wait()
}

// carry is one direction of a connection.
func (n *Network) carry(to, from net.Conn, w way) {
	b := make([]byte, 32<<10)
	for {
		got, err := from.Read(b)
		if _, ok := n.await(w); !ok {
			return
		}
		if got > 0 {
			if _, failed := to.Write(b[:got]); failed != nil {
				_ = from.Close()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.(*net.TCPConn).CloseWrite()
			return
		case err != nil: // an end that vanished, vanishes at the other end as well
			_ = to.Close()
			return
		}
	}
}

// caller returns the number of the node whose process has the other end of a connection: all nodes come from one address.
func (n *Network) caller(conn net.Conn) (int, error) {
	inode, err := socketOf(conn.RemoteAddr().String(), conn.LocalAddr().String())
	if err != nil {
		return 0, err
	}
	for i, node := range n.nodes {
		open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", node.pid()))
		for _, fd := range open {
			if name, err := os.Readlink(fd); err == nil && name == "socket:["+inode+"]" {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("%s is no node's", conn.RemoteAddr())
}

// socketOf finds the inode of the socket that has these two ends, in proc_net_tcp(5).
func socketOf(local, remote string) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	ends := hexadecimal(local) + " " + hexadecimal(remote) + " "
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 9 && strings.Contains(lines.Text(), ends) {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("there is no connection from %s to %s", local, remote)
}

// hexadecimal is an address as the kernel prints it.
func hexadecimal(address string) string {
	at := netip.MustParseAddrPort(address)
	ip := at.Addr().Unmap().As4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], at.Port())
}
