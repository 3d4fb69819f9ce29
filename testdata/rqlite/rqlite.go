// Package rqlitetest runs nodes of rqlite for tests and benchmarks, on loopback, with the settings that a mailbag service has.
//
// "make rqlited" builds the server from its Go module into .cache. Where it could not be had, [Available] says so.
package rqlitetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// program is the server.
func program() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../.cache/rqlited")
}

// Available returns nil where nodes can be run, or why not.
func Available() error {
	if _, err := os.Stat(program()); err != nil {
		return fmt.Errorf("rqlited was not built, or could not be had; see make rqlited: %w", err)
	}
	return nil
}

// Nodes are those of one ledger.
type Nodes struct {
	All     []*Node
	Network *Network // nil where they reach each other directly

	dir string
}

// A Node is one of them. Its methods may be called from several goroutines.
type Node struct {
	HTTP, Raft string // addresses that are the node's, whoever else passes on what comes for it

	client *http.Client // nil: without TLS

	from []string // its HTTP address as each machine reaches it
	args []string

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it is stopped
	exited chan struct{}
}

// Dir is the directory of a node among those that are started in a directory.
func Dir(dir string, node int) string { return filepath.Join(dir, fmt.Sprint("node-", node+1)) }

// Options of nodes. The zero value is that of nodes that reach each other, without credentials.
type Options struct {
	Network bool     // the nodes are on machines of their own, between which the network can be cut
	Args    []string // more arguments

	// Client asks whether nodes are ready that speak TLS; nil: they do not.
	Client *http.Client
}

// Unhurried are arguments for nodes on a machine that runs many tests: with time-outs as short as they should be it holds elections
// all the time.
var Unhurried = []string{"-raft-timeout", "1s", "-raft-election-timeout", "1s", "-raft-leader-lease-timeout", "500ms"}

// Start starts so many nodes in a directory, and waits until they have a leader.
func Start(ctx context.Context, dir string, n int, opt Options) (*Nodes, error) {
	all := &Nodes{dir: dir}
	for range n {
		node := &Node{client: opt.Client}
		for _, at := range []*string{&node.HTTP, &node.Raft} {
			port, err := postfixtest.FreePort()
			if err != nil {
				return nil, err
			}
			*at = fmt.Sprintf("127.0.0.1:%d", port)
		}
		node.from = slices.Repeat([]string{node.HTTP}, n)
		all.All = append(all.All, node)
	}
	if opt.Network {
		all.Network = newNetwork()
		all.Network.nodes = all.All
	}
	var join []string
	for i, node := range all.All {
		raft, err := all.lay(i)
		if err != nil {
			all.Stop()
			return nil, err
		}
		join = append(join, raft)
		node.args = append([]string{
			"-node-id", fmt.Sprint(i + 1), "-http-addr", node.HTTP, "-raft-addr", node.Raft, "-raft-adv-addr", raft,
			"-fk", "-auto-optimize-int", "0", "-raft-timeout", "300ms", "-raft-election-timeout", "300ms", "-raft-leader-lease-timeout", "200ms",
			"-bootstrap-expect", fmt.Sprint(n), "-raft-log-level", "ERROR",
		}, opt.Args...)
	}
	for i, node := range all.All {
		node.args = append(node.args, "-join", strings.Join(join, ","), Dir(dir, i))
		if err := node.Start(); err != nil {
			all.Stop()
			return nil, err
		}
	}
	if err := all.Wait(ctx); err != nil {
		all.Stop()
		return nil, err
	}
	return all, nil
}

// lay lays the network to a node, and returns the address by which the other nodes reach it.
func (n *Nodes) lay(to int) (raft string, err error) {
	node := n.All[to]
	if n.Network == nil {
		return node.Raft, nil
	}
	for from := range n.All {
		if from != to {
			whose := func(net.Conn) (int, error) { return from, nil }
			if node.from[from], err = n.Network.listen(to, node.HTTP, whose); err != nil {
				return "", err
			}
		}
	}
	return n.Network.listen(to, node.Raft, n.Network.caller)
}

// Address is what a ledger on the nodes is called by on the machine of one of them, by its number. That one is asked first.
func (n *Nodes) Address(machine int) string {
	var hosts []string
	for i := range n.All {
		hosts = append(hosts, n.All[(machine+i)%len(n.All)].from[machine])
	}
	return "rqlite://" + strings.Join(hosts, ",")
}

// Wait returns when every node knows a leader, and has what that had.
func (n *Nodes) Wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for _, node := range n.All {
		for !node.ready(ctx) {
			select {
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("%s has no leader", node.HTTP), ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func (n *Node) ready(ctx context.Context) bool {
	scheme, client := "http://", http.DefaultClient
	if n.client != nil {
		scheme, client = "https://", n.client
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+n.HTTP+"/readyz?sync", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(q)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode == http.StatusOK
}

// Leader returns the number of the node that leads, or -1.
func (n *Nodes) Leader() int {
	for i, node := range n.All {
		client := http.Client{Timeout: time.Second}
		answer, err := client.Get("http://" + node.HTTP + "/readyz?leader")
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if strings.Contains(string(text), "leader ok") && node.leads() {
			return i
		}
	}
	return -1
}

// leads asks a node whether it is the leader: one that is not has to hand the question on, and says to whom.
func (n *Node) leads() bool {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get("http://" + n.HTTP + "/db/query?level=weak&redirect&q=SELECT%201")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.Request.URL.Host == n.HTTP && answer.StatusCode == http.StatusOK
}

// Replace has a node begin anew with nothing, in the place of what it was: the others forget that one, take the new one in, and
// give it all that they have. Its directory stays, as it may be a file system of its own.
func (n *Nodes) Replace(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	n.All[i].Kill()
	for !n.remove(ctx, i) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the others do not forget %s: %w", n.All[i].HTTP, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	for patience := 10 * time.Second; ; patience *= 2 {
		files, err := filepath.Glob(filepath.Join(Dir(n.dir, i), "*"))
		for _, file := range files {
			err = errors.Join(err, os.RemoveAll(file))
		}
		if err = errors.Join(err, n.All[i].Start()); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, patience)
		err = n.Wait(soon)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		// One that hears from the leader, which is only about to forget what it was, believes that it is a member, and never joins.
		n.All[i].Kill()
	}
}

// remove has the other nodes forget one, and reports whether they do.
func (n *Nodes) remove(ctx context.Context, i int) bool {
	for j, node := range n.All {
		if j == i {
			continue
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+node.HTTP+"/remove", strings.NewReader(fmt.Sprintf(`{"id": "%d"}`, i+1)))
		if err != nil {
			return false
		}
		if answer, err := http.DefaultClient.Do(q); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return true
			}
		}
	}
	return false
}

// Stop kills all nodes, and ends the network.
func (n *Nodes) Stop() {
	for _, node := range n.All {
		node.Kill()
	}
	if n.Network != nil {
		n.Network.Stop()
	}
}

// Start starts a node, again where it was stopped or killed.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return nil
	}
	cmd := exec.Command(program(), n.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	dir := n.args[len(n.args)-1]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	n.cmd, n.exited = cmd, exited
	return nil
}

// pid is the node's process ID, 0 while it is stopped.
func (n *Node) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Kill ends a node with SIGKILL.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

// Stop ends a node as systemd does.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

func (n *Node) end(signal syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(signal)
	<-n.exited
	n.cmd = nil
}

// Pause has a node do nothing until Resume, and keep its connections.
func (n *Node) Pause() { n.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (n *Node) Resume() { n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s)
	}
}
