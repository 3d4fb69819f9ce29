package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"

	postfixtest "mailbag/testdata/postfix"
)

// A Daemon is one of mailbag's daemons at a service. It may be started and ended any number of times.
type Daemon struct {
	Program string
	Metrics string // address of its metrics; empty: it has none

	service *Service
	sockets []socket

	mu   sync.Mutex
	cmd  *exec.Cmd // nil while it is down
	log  syncBuffer
	held []*os.File // held for the daemon, see HoldSockets
}

// A socket is one that a daemon listens on: its name as systemd passes it, and where it is.
type socket struct{ name, network, address string }

// Start starts the daemon and waits until it serves.
func (d *Daemon) Start() error {
	if err := d.Launch(); err != nil {
		return err
	}
	return postfixtest.Wait(d.Program+" serves", func() bool {
		if d.Metrics == "" {
			conn, err := net.Dial(d.sockets[0].network, d.sockets[0].address)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}
		_, err := d.Metric("mailbag_build_info")
		return err == nil
	})
}

// Launch starts the daemon without waiting, with the sockets that are held for it.
func (d *Daemon) Launch() error {
	cmd := d.service.daemon(d.Program)
	if d.held != nil {
		// As systemd does it (sd_listen_fds(3)); only the process itself knows its ID.
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.ExtraFiles = d.held
		names := make([]string, len(d.sockets))
		for i, s := range d.sockets {
			names[i] = s.name
		}
		cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(d.held)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		return fmt.Errorf("%s runs already", d.Program)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd = cmd
	return nil
}

// HoldSockets opens the daemon's sockets for it, as systemd does, so that they outlive it. It must
// not run.
func (d *Daemon) HoldSockets() error {
	for _, s := range d.sockets {
		listener, err := net.Listen(s.network, s.address)
		if err != nil {
			return err
		}
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false)
			err = os.Chmod(s.address, 0o666)
		}
		file, fileErr := listener.(interface{ File() (*os.File, error) }).File()
		if err := errors.Join(err, fileErr, listener.Close()); err != nil {
			return err
		}
		d.held = append(d.held, file)
	}
	return nil
}

// Stop ends the daemon in the graceful way, and says how it ended. Stopping what does not run is no
// error.
func (d *Daemon) Stop() error { return d.end(syscall.SIGTERM) }

// Reload has the daemon read its settings again, and returns what it says of that.
func (d *Daemon) Reload() (string, error) {
	before := d.Log()
	if err := syscall.Kill(d.PID(), syscall.SIGHUP); err != nil {
		return "", err
	}
	err := postfixtest.Wait(d.Program+" has read its settings", func() bool { return strings.Contains(d.Log()[len(before):], "msg=\"settings ") })
	return d.Log()[len(before):], err
}

// Kill ends the daemon with no chance to finish anything.
func (d *Daemon) Kill() { _ = d.end(syscall.SIGKILL) }

func (d *Daemon) end(signal syscall.Signal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(signal) // it may have ended by itself; Wait tells
	err := d.cmd.Wait()
	d.cmd = nil
	if err != nil && signal == syscall.SIGTERM {
		return fmt.Errorf("%s ended with %w", d.Program, err)
	}
	return nil
}

// PID is the daemon's process ID, 0 while it is down.
func (d *Daemon) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return 0
	}
	return d.cmd.Process.Pid
}

// Log is what the daemon has logged.
func (d *Daemon) Log() string { return d.log.String() }

// Metric reads the first sample of the daemon's metrics whose name and labels begin with name.
func (d *Daemon) Metric(name string) (float64, error) {
	client := http.Client{Timeout: postfixtest.Patience}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://" + d.Metrics + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(page) {
		if fields := strings.Fields(string(line)); len(fields) == 2 && strings.HasPrefix(fields[0], name) {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", d.Program, name)
}

// syncBuffer is a buffer that a process writes while somebody reads.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
