package exim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/mta"
)

// Macros that the wiring defines.
const (
	wiredMacro = "MAILBAG_ROUTES"
	asideMacro = "MAILBAG_ASIDE" // since when mailbag stands aside (RFC 3339)
)

// Identity reads who this Exim is, from what its configuration comes to (-bP). What the daemon is told on its command line instead
// (-oX) is not in it. The error is mta.ErrMissing, mta.ErrBroken or mta.ErrUnreachable.
func (in Instance) Identity(ctx context.Context) (mta.Identity, error) {
	if !in.privileged() {
		return in.helper().Identity(ctx)
	}
	o, err := in.options(ctx, "primary_hostname", "spool_directory", "exim_user", "daemon_smtp_ports", "local_interfaces", "extra_local_interfaces", "tls_on_connect_ports")
	if err != nil {
		return mta.Identity{}, err
	}
	macros, err := in.options(ctx, "macros")
	if err != nil {
		return mta.Identity{}, err
	}
	id := mta.Identity{Hostname: o["primary_hostname"], Directories: []string{o["spool_directory"]}, Owner: o["exim_user"]}
	if id.Hostname == "" || o["spool_directory"] == "" {
		return mta.Identity{}, fmt.Errorf("%w: it has no primary_hostname or no spool_directory", mta.ErrBroken)
	}
	_, id.Wired = macros[wiredMacro]
	id.Holds = id.Wired
	id.Aside, _ = time.Parse(time.RFC3339, macros[asideMacro])
	id.Doors = doors(ctx, o)
	for _, d := range id.Doors {
		_, port, _ := net.SplitHostPort(d.Address)
		n, _ := strconv.ParseUint(port, 10, 16)
		id.Ports = append(id.Ports, uint16(n))
	}
	slices.Sort(id.Ports)
	id.Ports = slices.Compact(id.Ports)
	for _, text := range list(o["extra_local_interfaces"]) {
		if addr, err := netip.ParseAddr(text); err == nil {
			id.Addresses = append(id.Addresses, addr.Unmap())
		}
	}
	return id, nil
}

// options asks Exim for settings by their names, or for all macros. A switch that is off is not among them, nor is what has no value.
func (in Instance) options(ctx context.Context, names ...string) (map[string]string, error) {
	out, err := in.run(ctx, nil, append([]string{"-bP"}, names...)...)
	switch {
	case errors.Is(err, mta.ErrMissing) || ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w; repair it first (exim4 -bV): %w", mta.ErrBroken, err)
	}
	return values(out), nil
}

// values reads what -bP says.
func values(said string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(said) {
		if name, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return all
}

// doors are where Exim's daemon listens: each of local_interfaces that has no port of its own with each of daemon_smtp_ports.
func doors(ctx context.Context, o map[string]string) []mta.Door {
	ports := portNumbers(ctx, cmp.Or(o["daemon_smtp_ports"], "smtp"))
	secret := portNumbers(ctx, o["tls_on_connect_ports"])
	var all []mta.Door
	for _, entry := range list(cmp.Or(o["local_interfaces"], "<; ::0 ; 0.0.0.0")) {
		addr, own, ok := interfaceOf(entry)
		if !ok {
			continue
		}
		at := ports
		if own != 0 {
			at = []uint16{own}
		}
		for _, port := range at {
			all = append(all, mta.Door{Address: netip.AddrPortFrom(reached(addr), port).String(), TLS: slices.Contains(secret, port)})
		}
	}
	slices.SortStableFunc(all, func(a, b mta.Door) int { return rank(b) - rank(a) })
	return slices.Compact(all)
}

// rank puts the doors first by which strangers' mail comes, and IPv4 before IPv6, which may be off.
func rank(d mta.Door) int {
	at, _ := netip.ParseAddrPort(d.Address)
	n := 0
	if at.Addr().Is4() {
		n++
	}
	switch {
	case at.Port() == 25:
		return n + 4
	case !d.TLS:
		return n + 2
	}
	return n
}

// interfaceOf reads one of local_interfaces: an address, maybe with a port as in 192.0.2.1.25 or [2001:db8::1]:25 or
// 2001:db8::1.25.
func interfaceOf(entry string) (addr netip.Addr, port uint16, ok bool) {
	text := entry
	if host, after, bracketed := strings.Cut(strings.TrimPrefix(entry, "["), "]"); bracketed {
		text = host
		if after != "" {
			n, err := strconv.ParseUint(strings.TrimPrefix(after, ":"), 10, 16)
			if err != nil {
				return netip.Addr{}, 0, false
			}
			port = uint16(n)
		}
	}
	addr, err := netip.ParseAddr(text)
	if at := strings.LastIndexByte(text, '.'); err != nil && at >= 0 {
		n, err2 := strconv.ParseUint(text[at+1:], 10, 16)
		if addr, err = netip.ParseAddr(text[:at]); err2 != nil {
			err = err2
		}
		port = uint16(n)
	}
	return addr, port, err == nil
}

// reached is where a program of this machine connects to an interface: to all of its addresses at the loopback one.
func reached(addr netip.Addr) netip.Addr {
	switch {
	case !addr.IsUnspecified():
		return addr
	case addr.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// secluded reports whether by local_interfaces nobody but programs of this machine can connect.
func secluded(interfaces string) bool {
	all := list(interfaces)
	return len(all) > 0 && !slices.ContainsFunc(all, func(entry string) bool {
		addr, _, ok := interfaceOf(entry)
		return !ok || !addr.IsLoopback()
	})
}

// portNumbers reads a list of ports. One by a name that this machine does not know is none that Exim could listen on.
func portNumbers(ctx context.Context, text string) []uint16 {
	var all []uint16
	for _, name := range list(text) {
		if port, err := net.DefaultResolver.LookupPort(ctx, "tcp", name); err == nil {
			all = append(all, uint16(port))
		}
	}
	return all
}

// list splits a list as Exim does: at colons, or at what follows "<" at its beginning; a doubled separator is one that is meant.
func list(text string) []string {
	text = strings.TrimSpace(text)
	separator := ":"
	if len(text) > 1 && text[0] == '<' {
		separator, text = text[1:2], text[2:]
	}
	const kept = "\x00"
	var all []string
	for item := range strings.SplitSeq(strings.ReplaceAll(text, separator+separator, kept), separator) {
		if item = strings.TrimSpace(strings.ReplaceAll(item, kept, separator)); item != "" {
			all = append(all, item)
		}
	}
	return all
}
