package turn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"mailbag/meter"
	"mailbag/turnd/relay"
)

const (
	dialTime    = 20 * time.Second // for one address to accept the connection
	connectTime = 60 * time.Second // for all of them, greeting and STARTTLS included: the customer waits for it
	smtpPort    = 25
)

// connect opens a channel to the account's host, trying its addresses in turn. It returns where it
// arrived.
func (t *turn) connect(ctx context.Context) (*relay.Channel, string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-t.stop:
			cancel()
		case <-t.immediate.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	host, err := meter.ParseHost(t.account.Host)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	addresses, err := resolve(ctx, host)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return t.reach(ctx, host.Name, addresses)
}

// reach opens a channel to one of a host's addresses. Each has its share of the time that is left: one that accepts the
// connection and says nothing leaves time for the others.
func (t *turn) reach(ctx context.Context, name string, addresses []netip.AddrPort) (*relay.Channel, string, error) {
	deadline, _ := ctx.Deadline()
	var failures error
	for i, address := range addresses {
		if t.cfg.Self(address) {
			failures = errors.Join(failures, fmt.Errorf("%s: %w", address, ErrSelf))
			continue
		}
		until := time.Now().Add(time.Until(deadline) / time.Duration(len(addresses)-i))
		channel, err := t.channel(ctx, until, address, name)
		if errors.Is(err, relay.ErrTLS) {
			// Opportunistic: a server that cannot do what it offers still gets its mail (RFC 7435, section 3).
			t.log.Warn("the customer's server offers STARTTLS and fails at it; its mail goes in the clear", "account", t.account.Name, "address", address.String(), "error", err)
			channel, err = t.channel(ctx, until, address, "")
		}
		if err == nil {
			return channel, address.String(), nil
		}
		failures = errors.Join(failures, fmt.Errorf("%s: %w", address, err))
		select {
		case <-t.stop:
			return nil, "", t.why()
		default:
		}
		if ctx.Err() != nil {
			break
		}
	}
	if errors.Is(failures, ErrSelf) {
		return nil, "", fmt.Errorf("%w; correct its host: mailbag account set %s --host", failures, t.account.Name)
	}
	return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, failures)
}

// channel opens a channel to one address, with STARTTLS for the server name where there is one.
func (t *turn) channel(ctx context.Context, until time.Time, address netip.AddrPort, serverName string) (*relay.Channel, error) {
	dialling, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := t.cfg.Dial(dialling, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	o := relay.Options{Hostname: t.cfg.Hostname, Limits: t.cfg.Limits}
	if left := max(time.Until(until), time.Millisecond); o.Limits.Greeting == 0 || left < o.Limits.Greeting {
		o.Limits.Greeting = left
	}
	if serverName != "" {
		o.StartTLS = t.cfg.TLS.Clone()
		o.StartTLS.ServerName = serverName
	}
	return relay.Open(ctx, conn, nil, o)
}

// resolve returns a host's addresses with its port, in the resolver's order.
func resolve(ctx context.Context, host meter.Host) ([]netip.AddrPort, error) {
	port := uint16(host.Port)
	if port == 0 {
		port = smtpPort
	}
	if address, err := netip.ParseAddr(host.Name); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(address, port)}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host.Name)
	if err != nil {
		return nil, err
	}
	var addresses []netip.AddrPort
	for _, address := range found {
		addresses = append(addresses, netip.AddrPortFrom(address.Unmap(), port))
	}
	return addresses, nil
}
