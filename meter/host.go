package meter

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Host is where a customer's mail server listens.
type Host struct {
	Name string // domain name (normalized) or IP address without brackets
	Port int    // 0: the protocol's own
}

// ParseHost reads host, host:port, an IPv4 or IPv6 address, [IPv6] or [IPv6]:port.
func ParseHost(s string) (Host, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return checkHostAddr(s, addr, 0)
	}
	name, port := s, 0
	if strings.Contains(s, ":") {
		h, p, err := net.SplitHostPort(s)
		if err != nil {
			return Host{}, fmt.Errorf("%q is not a host or host:port", s)
		}
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return Host{}, fmt.Errorf("the port in %q is not a number from 1 to 65535", s)
		}
		name = h
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return checkHostAddr(s, addr, port)
	}
	normal, err := NormalizeDomain(name)
	if err != nil {
		return Host{}, fmt.Errorf("%q is not a host or host:port: %w", s, err)
	}
	return Host{Name: normal, Port: port}, nil
}

func checkHostAddr(s string, addr netip.Addr, port int) (Host, error) {
	if addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
		return Host{}, fmt.Errorf("%q is not an address that a mail server can have", s)
	}
	return Host{Name: addr.Unmap().String(), Port: port}, nil
}

// String is the host in the form that [ParseHost] reads.
func (h Host) String() string {
	if h.Port == 0 {
		return h.Name
	}
	return net.JoinHostPort(h.Name, strconv.Itoa(h.Port))
}
