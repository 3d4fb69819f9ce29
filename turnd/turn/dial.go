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
	dialTime    = 20 * time.Second // for one address
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
	var failures error
	for _, address := range addresses {
		if t.cfg.Self(address) {
			failures = errors.Join(failures, fmt.Errorf("%s: %w", address, ErrSelf))
			continue
		}
		channel, err := t.channel(ctx, address, host.Name)
		if errors.Is(err, relay.ErrTLS) {
			// Opportunistic: a server that cannot do what it offers still gets its mail (RFC 7435, section 3).
			t.log.Warn("the customer's server offers STARTTLS and fails at it; its mail goes in the clear", "account", t.account.Name, "address", address.String(), "error", err)
			channel, err = t.channel(ctx, address, "")
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
func (t *turn) channel(ctx context.Context, address netip.AddrPort, serverName string) (*relay.Channel, error) {
	conn, err := t.cfg.Dial(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	o := relay.Options{Hostname: t.cfg.Hostname, Limits: t.cfg.Limits}
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
