package turn

import (
	"context"
	"crypto/tls"
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
	// greetTime is how long a server may take to greet where nobody waits for it (RFC 5321, section 4.5.3.2.1).
	greetTime = 5 * time.Minute
	smtpPort  = 25
)

// connect opens a channel to the account's host, trying its addresses in turn. It returns where it
// arrived.
func (l *line) connect(ctx context.Context) (*relay.Channel, string, error) {
	patience := connectTime
	if l.number > 0 {
		patience = greetTime
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-l.stop:
			cancel()
		case <-l.immediate.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	host, err := meter.ParseHost(l.account.Host)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	addresses, err := resolve(ctx, host)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return l.reach(ctx, host.Name, addresses)
}

// reach opens a channel to one of a host's addresses. Each has its share of the time that is left: one that accepts the
// connection and says nothing leaves time for the others.
func (l *line) reach(ctx context.Context, name string, addresses []netip.AddrPort) (*relay.Channel, string, error) {
	deadline, _ := ctx.Deadline()
	var failures error
	for i, address := range addresses {
		if l.cfg.Self(address) {
			failures = errors.Join(failures, fmt.Errorf("%s: %w", address, ErrSelf))
			continue
		}
		until := time.Now().Add(time.Until(deadline) / time.Duration(len(addresses)-i))
		first := until
		if !l.account.TLS.Mandatory() && !l.clear { // TLS that hangs leaves time for none
			first = time.Now().Add(time.Until(until) / 2)
		}
		channel, err := l.channel(ctx, first, address, name)
		if errors.Is(err, relay.ErrTLS) && !l.account.TLS.Mandatory() {
			// Opportunistic: a server that cannot do what it offers still gets its mail (RFC 7435, section 3).
			l.log.Warn("the customer's server offers STARTTLS and fails at it; its mail goes in the clear", "account", l.account.Name, "address", address.String(), "error", err)
			l.clear = true
			channel, err = l.channel(ctx, until, address, name)
		}
		if err == nil {
			return channel, address.String(), nil
		}
		failures = errors.Join(failures, fmt.Errorf("%s: %w", address, err))
		select {
		case <-l.stop:
			return nil, "", l.why()
		default:
		}
		if ctx.Err() != nil {
			break
		}
	}
	if errors.Is(failures, ErrSelf) {
		return nil, "", fmt.Errorf("%w; correct its host: mailbag account set %s --host", failures, l.account.Name)
	}
	return nil, "", fmt.Errorf("%w: %w", ErrUnreachable, failures)
}

// channel opens a channel to one address, with STARTTLS for the server name unless that failed before in this turn.
func (l *line) channel(ctx context.Context, until time.Time, address netip.AddrPort, serverName string) (*relay.Channel, error) {
	dialling, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := l.cfg.Dial(dialling, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	o := l.options()
	if left := max(time.Until(until), time.Millisecond); o.Limits.Greeting == 0 || left < o.Limits.Greeting {
		o.Limits.Greeting = left
	}
	if !l.clear {
		o.StartTLS = l.cfg.TLS.Clone()
		o.StartTLS.ServerName = serverName
		if l.account.TLS.Mandatory() {
			o.RequireTLS = true
			o.StartTLS.MinVersion, o.StartTLS.CipherSuites = tls.VersionTLS12, nil
		}
		if l.account.TLS == meter.TLSVerify {
			o.StartTLS.InsecureSkipVerify = false
		}
	}
	return relay.Open(ctx, conn, nil, o)
}

// options are those of the next channel, by what is known of the server.
func (l *line) options() relay.Options {
	return relay.Options{Hostname: l.cfg.Hostname, Limits: l.cfg.Limits, Many: l.many, Without: l.lessons, MaxMessages: l.most}
}

// newLine is that of a turn, with what its server taught before. Many says whether more than one message waits.
func (t *turn) newLine(many bool) *line {
	l := &line{turn: t, many: many}
	l.lessons, l.most = t.memory.server(t.account.ID)
	return l
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
