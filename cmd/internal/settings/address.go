package settings

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// An Address is where a daemon listens. The zero Address is nowhere.
type Address struct {
	Network string // "unix", or "tcp", "tcp4", "tcp6" as the host's notation tells
	Address string // absolute path, or host:port with a numeric port; an empty host is every address of the machine
}

// maxUnixPath is what fits into sun_path with its final NUL (unix(7)).
const maxUnixPath = 107

// ParseAddress reads "unix:/path", "host:port" or "[IPv6]:port". Port 0 lets the system choose.
func ParseAddress(s string) (Address, error) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		p, err := checkPath(p)
		if err != nil {
			return Address{}, err
		}
		if len(p) > maxUnixPath {
			return Address{}, fmt.Errorf("the socket path %q is longer than %d octets", p, maxUnixPath)
		}
		return Address{Network: "unix", Address: p}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, fmt.Errorf(`%q is not an address: write "unix:/path", "host:port" or "[IPv6]:port"`, s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return Address{}, fmt.Errorf("%q has the port %q: write a number from 0 to 65535", s, port)
	}
	network, err := networkOf(host)
	if err != nil {
		return Address{}, fmt.Errorf("%q: %w", s, err)
	}
	return Address{Network: network, Address: net.JoinHostPort(host, port)}, nil
}

var listenHost = regexp.MustCompile(`^[A-Za-z0-9.-]{1,255}$`)

// networkOf tells the address families apart, so that 0.0.0.0 and [::] can listen on one port side by side.
func networkOf(host string) (string, error) {
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Is4():
		return "tcp4", nil
	case err == nil:
		return "tcp6", nil
	case host == "" || listenHost.MatchString(host):
		return "tcp", nil
	}
	return "", fmt.Errorf("%q is neither an IP address nor a host name", host)
}

// IsZero reports whether nothing is to listen.
func (a Address) IsZero() bool { return a == Address{} }

// String returns the notation of the settings file; that of the zero Address is empty.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

func address(value any) (Address, error) {
	s, err := text(value, `an address such as "127.0.0.1:9366" or "unix:/path"`)
	if err != nil {
		return Address{}, err
	}
	return ParseAddress(s)
}

// socketPath reads the address of a unix socket, for what only this host may reach.
func socketPath(value any) (Address, error) {
	a, err := address(value)
	if err == nil && a.Network != "unix" {
		err = fmt.Errorf("%q is no unix socket: write \"unix:/path\"", a)
	}
	return a, err
}

// ipAddress reads the address of another machine, or of this one, without a port.
func ipAddress(value any) (netip.Addr, error) {
	s, err := text(value, `an IP address such as "192.0.2.5"`)
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return netip.Addr{}, fmt.Errorf(`%q is not an IP address: write one such as "192.0.2.5" or "2001:db8::5"`, s)
	}
	return ip.Unmap(), nil
}
