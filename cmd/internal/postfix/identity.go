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
	"time"
)

// An Identity is what a Postfix is to others: its name, and where it listens.
type Identity struct {
	Hostname       string       // myhostname
	QueueDirectory string       // queue_directory
	Owner          string       // mail_owner, as whom its processes run
	Ports          []uint16     // where mail comes in by SMTP, by smtpd or postscreen; sorted
	Holds          bool         // it has the transport that holds mail, so what is held is in its queue
	Proxies        []netip.Addr // proxy_interfaces: addresses that lead here although no interface has them
	Doors          []Door       // the services behind Ports, those of port 25 first
	Wired          bool         // mailbag is in main.cf
	Aside          time.Time    // since when mailbag stands aside; zero: it does not
}

// A Door is a service through which mail comes in by SMTP.
type Door struct {
	Address string // host:port that a program on this machine connects to
	TLS     bool   // from the first octet (smtpd_tls_wrappermode)
	Screen  bool   // postscreen(8), which may let a client wait before it greets
}

// Identity reads who this Postfix is. The error is ErrMissing or ErrBroken.
func (in Instance) Identity(ctx context.Context) (Identity, error) {
	c, err := in.read(ctx)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Hostname: c.expanded["myhostname"], QueueDirectory: c.expanded["queue_directory"], Owner: c.expanded["mail_owner"]}
	if id.Hostname == "" || id.QueueDirectory == "" {
		return Identity{}, fmt.Errorf("%w: it has no myhostname or no queue_directory", ErrBroken)
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
		id.Doors = append(id.Doors, Door{net.JoinHostPort(c.interfaceOf(s), strconv.Itoa(port)), c.value(s, "smtpd_tls_wrappermode") == "yes", s.command == "postscreen"})
	}
	slices.Sort(id.Ports)
	slices.SortStableFunc(id.Doors, func(a, b Door) int { return b.rank() - a.rank() })
	_, id.Wired = c.explicit[recipientClass]
	id.Aside = c.aside()
	for _, text := range texts(c.expanded["proxy_interfaces"]) {
		if addr, err := netip.ParseAddr(text); err == nil { // it may be a name or a table too
			id.Proxies = append(id.Proxies, addr.Unmap())
		}
	}
	return id, nil
}

// rank puts the services first that strangers' mail comes by.
func (d Door) rank() int {
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
