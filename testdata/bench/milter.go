package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	postfixtest "mailbag/testdata/postfix"

	"golang.org/x/sys/unix"
)

// startMilter starts a milter at socket.
func startMilter(socket string, spin time.Duration) (*exec.Cmd, error) {
	return startSelf("the milter", socket, "-milter", socket, "-spin", spin.String())
}

// startSelf starts this program as something else that listens at socket: in this process it would be held up by the clients
// that measure it.
func startSelf(what, socket string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err = postfixtest.Wait(what+" at "+socket, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if err != nil {
		end(cmd)
	}
	return cmd, err
}

// end ends a program that has nothing to finish.
func end(program *exec.Cmd) {
	_ = program.Process.Kill()
	_ = program.Wait() // says that it was killed
}

// unheard are the steps of the protocol that say nothing of what is counted (HELO, DATA, end of the header, unknown
// commands), and the replies to all others but the last.
const unheard = 0x2 | 0x40 | 0x100 | 0x200 | 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x40000 | 0x80000

// serveMilter is a milter that wants to know all that happens in a session, and agrees to it after it has used so much CPU
// on each message. It does nothing else. Without that it is the null milter: it asks for what has to be known to count mail, and
// is the least that this costs.
func serveMilter(socket string, spin time.Duration) error {
	return serveEach(socket, func(conn net.Conn) {
		if err := agree(conn, spin); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, "bench: milter:", err)
		}
	})
}

// serveEach serves the connections to a unix socket that the MTA may connect to.
func serveEach(socket string, serve func(net.Conn)) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// agree speaks the milter protocol: packets of a length in four octets, a letter, and what belongs to it.
func agree(conn net.Conn, spin time.Duration) error {
	const version = 6
	r := bufio.NewReader(conn)
	packet := make([]byte, 1<<16+1) // the most that Postfix sends at once, and the letter
	for {
		if _, err := io.ReadFull(r, packet[:4]); err != nil {
			return err
		}
		length := binary.BigEndian.Uint32(packet)
		if length == 0 || int(length) > len(packet) {
			return fmt.Errorf("a packet of %d octets", length)
		}
		if _, err := io.ReadFull(r, packet[:length]); err != nil {
			return err
		}
		reply := []byte{0, 0, 0, 1, 'c'} // go on
		switch packet[0] {
		case 'O': // options: no action of ours, and no step left out, but for the null milter all steps that can be
			reply = append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 13, 'O'}, version), 0, 0, 0, 0)
			steps := uint32(0)
			if spin == 0 {
				steps = unheard & binary.BigEndian.Uint32(packet[9:])
			}
			reply = binary.BigEndian.AppendUint32(reply, steps)
		case 'D', 'A': // macros, abort: no reply
			continue
		case 'Q':
			return nil
		case 'C', 'M', 'R', 'L', 'B':
			if spin == 0 {
				continue
			}
		case 'E': // end of message
			if err := use(spin); err != nil {
				return err
			}
		}
		if _, err := conn.Write(reply); err != nil {
			return err
		}
	}
}

// use uses so much CPU, however long that takes beside others.
func use(cpu time.Duration) error {
	if cpu == 0 {
		return nil
	}
	runtime.LockOSThread() // the clock is one thread's
	defer runtime.UnlockOSThread()
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	for end := now.Nano() + cpu.Nanoseconds(); err == nil && now.Nano() < end; {
		err = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	}
	return err
}
