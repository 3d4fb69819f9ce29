// Package rqlitetest runs nodes of rqlite for tests and benchmarks, on loopback, with the settings that a mailbag service has.
//
// make deps builds the server from its Go module into .cache. Where it could not be had, [Available] says so.
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
	"strings"
	"sync"
	"syscall"
	"time"
)

// program is the server.
func program() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../.cache/rqlited")
}

// Available returns nil where nodes can be run, or why not.
func Available() error {
	if _, err := os.Stat(program()); err != nil {
		return fmt.Errorf("rqlited was not built, or could not be had; see make deps: %w", err)
	}
	return nil
}

// Nodes are those of one ledger.
type Nodes struct {
	All []*Node
	dir string
}

// A Node is one of them. Its methods may be called from several goroutines.
type Node struct {
	HTTP, Raft string // addresses that are the node's, whoever else passes on what comes for it

	args []string

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it is stopped
	exited chan struct{}
}

// Options of nodes. The zero value is that of nodes that reach each other, without credentials.
type Options struct {
	// Advertise returns the addresses by which the others reach a node, in place of its own: those of proxies.
	Advertise func(node int, http, raft string) (string, string)
	Args      []string // more arguments
}

// Start starts so many nodes in a directory, and waits until they have a leader.
func Start(ctx context.Context, dir string, n int, opt Options) (*Nodes, error) {
	all := &Nodes{dir: dir}
	var join []string
	for i := range n {
		http, raft := freePort(), freePort()
		node := &Node{HTTP: http, Raft: raft}
		advertisedHTTP, advertisedRaft := http, raft
		if opt.Advertise != nil {
			advertisedHTTP, advertisedRaft = opt.Advertise(i, http, raft)
		}
		join = append(join, advertisedRaft)
		node.args = append([]string{
			"-node-id", fmt.Sprint(i + 1), "-http-addr", http, "-raft-addr", raft, "-http-adv-addr", advertisedHTTP, "-raft-adv-addr", advertisedRaft,
			"-fk", "-auto-optimize-int", "0", "-raft-timeout", "300ms", "-raft-election-timeout", "300ms", "-raft-leader-lease-timeout", "200ms",
			"-bootstrap-expect", fmt.Sprint(n), "-raft-log-level", "ERROR",
		}, opt.Args...)
		all.All = append(all.All, node)
	}
	for i, node := range all.All {
		node.args = append(node.args, "-join", strings.Join(join, ","), filepath.Join(dir, fmt.Sprint("node-", i+1)))
		if err := node.Start(); err != nil {
			all.Stop()
			return nil, err
		}
	}
	if err := all.wait(ctx); err != nil {
		all.Stop()
		return nil, err
	}
	return all, nil
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Address is what a ledger on the nodes is called by; first is the number of the one that is asked first.
func (n *Nodes) Address(first int) string {
	var hosts []string
	for i := range n.All {
		hosts = append(hosts, n.All[(first+i)%len(n.All)].HTTP)
	}
	return "rqlite://" + strings.Join(hosts, ",")
}

// wait returns when every node knows a leader.
func (n *Nodes) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
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
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(q)
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

// Stop kills all nodes.
func (n *Nodes) Stop() {
	for _, node := range n.All {
		node.Kill()
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
