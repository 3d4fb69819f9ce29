package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mailbag/cmd/internal/settings"
)

// A holder is a process that has what a daemon needs, such as a port.
type holder struct {
	program string
	pid     int
}

func (h holder) String() string { return fmt.Sprintf("%s (process %d)", h.program, h.pid) }

// named is a process with the name of its program.
func named(pid int) holder {
	program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return holder{filepath.Base(strings.TrimSuffix(program, " (deleted)")), pid}
}

// foreignHolders are who listens, by address, in the place of a program or of systemd, which holds its sockets. Who
// listens in another network namespace is not seen.
func foreignHolders(fronts []front, program string) map[string]holder {
	foreign := map[string]holder{}
	for _, f := range fronts {
		if f.at.Network == "unix" {
			continue
		}
		if holders := listening(f.at); len(holders) > 0 && !slices.ContainsFunc(holders, func(h holder) bool { return h.program == program || h.pid == 1 }) {
			foreign[f.at.Address] = holders[0]
		}
	}
	return foreign
}

// listening is who listens where a call to an address arrives (proc_net(5) and proc_pid_fd(5)).
func listening(at settings.Address) []holder {
	to, err := netip.ParseAddrPort(strings.Replace(at.Address, "localhost:", "127.0.0.1:", 1))
	if err != nil { // every address, or a name
		_, port, _ := strings.Cut(at.Address, ":")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil
		}
		to = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))
	}
	exact, every := map[string]bool{}, map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeners(table, to, exact, every)
	}
	sockets := exact // which get the call where there are both
	if len(exact) == 0 {
		sockets = every
	}
	if len(sockets) == 0 {
		return nil
	}
	var holders []holder
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		descriptors, err := os.ReadDir(process + "/fd")
		if err != nil {
			continue // it has ended
		}
		for _, d := range descriptors {
			if target, err := os.Readlink(process + "/fd/" + d.Name()); err == nil && sockets[target] {
				pid, _ := strconv.Atoi(filepath.Base(process))
				holders = append(holders, named(pid))
				break
			}
		}
	}
	return holders
}

// stateListen is TCP_LISTEN.
const stateListen = "0A"

// listeners finds the sockets in a table of the kernel that listen on an address, and on every one, by what their
// descriptors are links to.
func listeners(table string, to netip.AddrPort, exact, every map[string]bool) {
	file, err := os.Open(table)
	if err != nil {
		return
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		local, err := kernelAddress(f[1])
		if err != nil || local.Port() != to.Port() {
			continue
		}
		socket := "socket:[" + f[9] + "]"
		switch at := local.Addr().Unmap(); {
		case slices.Contains(arrivals(to.Addr().Unmap()), at):
			exact[socket] = true
		case at.IsUnspecified():
			every[socket] = true
		}
	}
}

// arrivals are where a call to an address arrives: one to every address at the machine's own.
func arrivals(a netip.Addr) []netip.Addr {
	loopback4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch a {
	case netip.IPv4Unspecified():
		return []netip.Addr{loopback4}
	case netip.IPv6Unspecified():
		return []netip.Addr{loopback4, netip.IPv6Loopback()}
	}
	return []netip.Addr{a}
}

// kernelAddress reads an address as the kernel shows it: each four octets of it as a number of this machine.
func kernelAddress(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	octets, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for word := range slices.Chunk(octets, 4) {
		slices.Reverse(word) // little-endian, as all that the package is made for
	}
	addr, ok := netip.AddrFromSlice(octets)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}
