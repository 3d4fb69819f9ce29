package turn

import (
	"net"
	"slices"
	"sync"
	"time"

	"mailbag/cmd/door"
	"mailbag/meter"
	"mailbag/turnd/relay"
)

// maxSessions bounds the MTA's connections to one gate, of which Postfix makes as many as it has messages released, and 100 at
// the most (see its wiring).
const maxSessions = 150

// A gate is the account's socket and the MTA's sessions on it. Sessions that come before the channel is
// there wait for it; when it is over they are told to keep what they have.
type gate struct {
	turn     *turn
	listener net.Listener
	failed   door.Throttle // of connections that cannot be accepted

	connected chan struct{} // closed at the first connection
	opened    chan struct{} // closed when channel or refusal is set
	once      struct{ connected, opened sync.Once }

	mu      sync.Mutex
	channel *relay.Channel // the latest
	refusal string         // why nothing is taken; empty while it is
	changed chan struct{}  // closed and replaced when one of these changes
	conns   map[net.Conn]bool
	closed  bool

	sessions sync.WaitGroup
}

func newGate(t *turn, l net.Listener) *gate {
	g := &gate{turn: t, listener: l, connected: make(chan struct{}), opened: make(chan struct{}), changed: make(chan struct{}),
		conns: map[net.Conn]bool{}}
	g.sessions.Go(g.accept)
	return g
}

func (g *gate) accept() {
	for {
		conn, err := door.Accept(g.turn.immediate, g.listener, g.notAccepted)
		if err != nil {
			return // closed
		}
		g.mu.Lock()
		full := g.closed || len(g.conns) >= maxSessions
		if !full {
			g.conns[conn] = true
		}
		g.mu.Unlock()
		if full {
			conn.Close()
			continue
		}
		g.once.connected.Do(func() { close(g.connected) })
		g.sessions.Go(func() {
			(&session{gate: g, conn: conn}).run()
			conn.Close()
			g.mu.Lock()
			delete(g.conns, conn)
			g.mu.Unlock()
		})
	}
}

func (g *gate) notAccepted(err error) {
	if n, ok := g.failed.Allow(); ok {
		g.turn.log.Error("cannot accept a connection of the MTA; is the limit of open files too low?",
			"account", g.turn.account.Name, "error", err, "more", n)
	}
}

// serve lets the sessions go on, over the channel.
func (g *gate) serve(c *relay.Channel) {
	g.mu.Lock()
	g.channel = c
	g.notify()
	g.mu.Unlock()
	g.once.opened.Do(func() { close(g.opened) })
}

// fail lets the sessions go on with nothing to deliver to.
func (g *gate) fail(err error) {
	g.refuse("4.4.2 " + oneLine(err.Error()))
	g.once.opened.Do(func() { close(g.opened) })
}

// refuse keeps further messages from being taken.
func (g *gate) refuse(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal == "" {
		g.refusal = why
		g.notify()
	}
}

// notify wakes who waits in await. g.mu is held.
func (g *gate) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// refused is why nothing is taken any more; empty while it is.
func (g *gate) refused() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal
}

// offers is what the customer's server offers: that of the latest connection, between two of them. Before the first
// everything is offered, so that nothing is refused for good that the next turn can deliver.
func (g *gate) offers() relay.Extensions {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.channel == nil {
		return relay.Extensions{Size: true, EightBit: true, UTF8: true, DSN: true}
	}
	return g.channel.Extensions()
}

// awaitTime is how long a message waits for the next connection. Postfix waits for a reply to DATA for two minutes
// (lmtp_data_init_timeout).
const awaitTime = time.Minute

// await returns the channel that takes messages, and waits for the next connection where the last one is over. Without a
// channel it returns why, and whether the turn is over.
func (g *gate) await() (c *relay.Channel, refusal string, closed bool) {
	var patience <-chan time.Time
	for {
		g.mu.Lock()
		c, refusal, changed := g.channel, g.refusal, g.changed
		g.mu.Unlock()
		switch {
		case refusal != "":
			return nil, refusal, true
		case c != nil && c.Takes():
			return c, "", false
		}
		if patience == nil {
			patience = time.After(awaitTime)
		}
		select {
		case <-changed:
		case <-patience:
			return nil, "4.4.1 The customer's server is not reached again yet", false
		}
	}
}

// takes reports whether mail for a domain may pass, and returns the domain as the account has it, or why not. What the
// account has is looked up anew: an operator may have given it a domain, or taken one from it, since the turn began.
func (g *gate) takes(domain string) (name, refusal string) {
	name, err := meter.NormalizeDomain(domain)
	if err != nil {
		return "", "550 5.1.2 This is no domain name"
	}
	a := g.turn.cfg.Accounts.Directory().Domain(name)
	switch {
	case a == nil || a.ID != g.turn.account.ID:
		return "", "450 4.7.1 Mail for this domain does not go to this account's turn"
	case !g.turn.named(name):
		return "", "450 4.3.2 Mail for this domain waits for a turn of its own"
	}
	return name, ""
}

// named reports whether the turn is for the domain.
func (t *turn) named(domain string) bool {
	return len(t.domains) == 0 || slices.Contains(t.domains, domain)
}

// close removes the socket and ends all sessions.
func (g *gate) close() {
	g.listener.Close()
	g.mu.Lock()
	g.closed = true
	for conn := range g.conns {
		conn.Close()
	}
	g.mu.Unlock()
	g.once.opened.Do(func() { close(g.opened) })
	g.sessions.Wait()
}
