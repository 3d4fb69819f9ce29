package eximtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

const poll = 10 * time.Millisecond

// daemon is the running daemon, a child of this process.
type daemon struct {
	cmd  *exec.Cmd
	said strings.Builder
	done chan struct{} // closed when it has been waited for
}

// Start makes Exim's configuration as Debian does, starts the daemon and waits until it greets.
func (in *Instance) Start() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.daemon != nil {
		return fmt.Errorf("the Exim in %s is running already", in.dir)
	}
	if err := in.update(); err != nil {
		return err
	}
	d := &daemon{cmd: in.Command("/usr/sbin/exim4", "-bdf", "-q"+in.interval), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = &d.said, &d.said
	d.cmd.WaitDelay = time.Second // what it started may hold its output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start Exim: %w", err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // ended by a signal, and that is no news
	}()
	in.daemon = d
	ctx, cancel := context.WithTimeout(context.Background(), postfixtest.Patience)
	defer cancel()
	if err := in.waitReady(ctx, d); err != nil {
		return errors.Join(err, in.stop())
	}
	return nil
}

// update makes the configuration from Debian's parts.
func (in *Instance) update() error {
	if _, err := in.run("/usr/sbin/update-exim4.conf"); err != nil {
		return err
	}
	_, err := in.run("/usr/sbin/exim4", "-bV")
	return err
}

func (in *Instance) waitReady(ctx context.Context, d *daemon) error {
	for {
		c, err := postfixtest.Dial(in.addr, "")
		if err == nil {
			_, err = c.Say("QUIT")
			return errors.Join(err, c.Close())
		}
		select {
		case <-d.done:
			return fmt.Errorf("exim ended right after its start: %s\n%s", &d.said, tail(in.Log(), 20))
		case <-ctx.Done():
			return fmt.Errorf("exim does not answer on %s: %w\n%s", in.addr, err, tail(in.Log(), 20))
		case <-time.After(poll):
		}
	}
}

// Stop ends the daemon and waits until it is gone. As on a Debian, deliveries that are under way go on. Stopping a stopped
// instance does nothing.
func (in *Instance) Stop() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stop()
}

func (in *Instance) stop() error {
	d := in.daemon
	if d == nil {
		return nil
	}
	in.daemon = nil
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		return nil
	case <-time.After(stopWithin):
		_ = d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("the Exim in %s did not end within %v of SIGTERM", in.dir, stopWithin)
	}
}

// Close ends everything in the instance's root.
func (in *Instance) Close() error {
	err := in.root.close()
	in.mu.Lock()
	defer in.mu.Unlock()
	if d := in.daemon; d != nil {
		<-d.done
		in.daemon = nil
	}
	return err
}

// Reload makes Exim's configuration anew and has the daemon read it, and waits until it has done so.
func (in *Instance) Reload() error {
	if err := in.update(); err != nil {
		return err
	}
	in.mu.Lock()
	d := in.daemon
	in.mu.Unlock()
	if d == nil {
		return fmt.Errorf("the Exim in %s is not running", in.dir)
	}
	before := strings.Count(in.Log(), started)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return postfixtest.Wait("Exim to read its configuration", func() bool {
		return strings.Count(in.Log(), started) > before
	})
}

const started = " daemon started: "

// Log is everything the instance has logged since it was built.
func (in *Instance) Log() string {
	text, err := os.ReadFile(in.Root("/var/log/exim4/mainlog"))
	if err != nil {
		return "" // nothing logged yet
	}
	return string(text)
}

// WaitLog waits until the log has text.
func (in *Instance) WaitLog(text string) error {
	return postfixtest.Wait(fmt.Sprintf("%q in the log of Exim", text), func() bool {
		return strings.Contains(in.Log(), text)
	})
}
