package postfix

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// An Identity is what a Postfix is to others: its name, and where it listens.
type Identity struct {
	Hostname       string       // myhostname
	QueueDirectory string       // queue_directory
	Owner          string       // mail_owner, as whom its processes run
	Ports          []uint16     // where mail comes in by SMTP, by smtpd or postscreen; sorted
	Holds          bool         // it has the transport that holds mail, so what is held is in its queue
	Proxies        []netip.Addr // proxy_interfaces: addresses that lead here although no interface has them
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
		if port, err := net.DefaultResolver.LookupPort(ctx, "tcp", name); err == nil && !slices.Contains(id.Ports, uint16(port)) {
			id.Ports = append(id.Ports, uint16(port))
		}
	}
	slices.Sort(id.Ports)
	for _, text := range texts(c.expanded["proxy_interfaces"]) {
		if addr, err := netip.ParseAddr(text); err == nil { // it may be a name or a table too
			id.Proxies = append(id.Proxies, addr.Unmap())
		}
	}
	return id, nil
}
