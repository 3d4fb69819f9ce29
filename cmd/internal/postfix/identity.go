package postfix

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"mailbag/cmd/internal/mta"
)

// Identity reads who this Postfix is. The error is mta.ErrMissing or mta.ErrBroken.
func (in Instance) Identity(ctx context.Context) (mta.Identity, error) {
	c, err := in.read(ctx)
	if err != nil {
		return mta.Identity{}, err
	}
	queue := c.expanded["queue_directory"]
	id := mta.Identity{Hostname: c.expanded["myhostname"], Directories: []string{queue, c.expanded["data_directory"]}, Owner: c.expanded["mail_owner"]}
	if id.Hostname == "" || queue == "" {
		return mta.Identity{}, fmt.Errorf("%w: it has no myhostname or no queue_directory", errBroken)
	}
	_, id.Holds = c.service(turnTransport + "/unix")
	for _, s := range c.services {
		if s.kind != "inet" || s.command != "smtpd" && s.command != "postscreen" {
			continue
		}
		name := s.name // port or host:port
		if _, port, err := net.SplitHostPort(name); err == nil {
			name = port
		}
		// A port by a name that this machine does not know is none that Postfix could listen on.
		port, err := net.DefaultResolver.LookupPort(ctx, "tcp", name)
		if err != nil {
			continue
		}
		if !slices.Contains(id.Ports, uint16(port)) {
			id.Ports = append(id.Ports, uint16(port))
		}
		id.Doors = append(id.Doors, mta.Door{Address: net.JoinHostPort(c.interfaceOf(s), strconv.Itoa(port)), TLS: c.value(s, "smtpd_tls_wrappermode") == "yes", Screen: s.command == "postscreen"})
	}
	slices.Sort(id.Ports)
	slices.SortStableFunc(id.Doors, func(a, b mta.Door) int { return rank(b) - rank(a) })
	_, id.Wired = c.explicit[recipientClass]
	id.Aside = c.aside()
	for _, text := range texts(c.expanded["proxy_interfaces"]) {
		if addr, err := netip.ParseAddr(text); err == nil { // it may be a name or a table too
			id.Addresses = append(id.Addresses, addr.Unmap())
		}
	}
	return id, nil
}

// rank puts the services first that strangers' mail comes by.
func rank(d mta.Door) int {
	if _, port, _ := net.SplitHostPort(d.Address); port == "25" {
		return 2
	}
	if !d.TLS {
		return 1
	}
	return 0
}

// interfaceOf is an address at which a service can be reached from this machine: the one in its name, or the first of
// inet_interfaces.
func (c configuration) interfaceOf(s service) string {
	loopback := "127.0.0.1"
	if protocols := c.expanded["inet_protocols"]; protocols == "ipv6" {
		loopback = "::1"
	}
	host, _, err := net.SplitHostPort(s.name)
	if err != nil {
		host = cmp.Or(append(texts(c.value(s, "inet_interfaces")), "")...)
	}
	switch host {
	case "", "all", "loopback-only", "0.0.0.0":
		return loopback
	case "::":
		return "::1"
	}
	return strings.Trim(host, "[]")
}
