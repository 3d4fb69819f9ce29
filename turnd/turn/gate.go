package turn

import (
	"net"
	"slices"
	"sync"

	"mailbag/meter"
	"mailbag/meter/door"
	"mailbag/turnd/relay"
)

// maxSessions bounds the MTA's connections to one gate. Postfix makes 20 (see its wiring).
const maxSessions = 100

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
	channel *relay.Channel
	refusal string // why nothing is taken; empty while it is
	conns   map[net.Conn]bool
	closed  bool

	sessions sync.WaitGroup
}

func newGate(t *turn, l net.Listener) *gate {
	g := &gate{turn: t, listener: l, connected: make(chan struct{}), opened: make(chan struct{}),
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
	}
}

// current returns the channel, or why there is none.
func (g *gate) current() (*relay.Channel, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusal == "" && g.channel != nil {
		if err := g.channel.Err(); err != nil {
			g.refusal = "4.4.2 " + oneLine(err.Error())
		}
	}
	return g.channel, g.refusal
}

// takes reports whether mail for a domain may pass, or says why not, and whether it is the account's all
// the same. What the account has is looked up
// anew: an operator may have given it a domain, or taken one from it, since the turn began.
func (g *gate) takes(domain string) (refusal string, ours bool) {
	name, err := meter.NormalizeDomain(domain)
	if err != nil {
		return "550 5.1.2 This is no domain name", false
	}
	a := g.turn.cfg.Accounts.Directory().Domain(name)
	if a == nil || a.ID != g.turn.account.ID {
		return "450 4.7.1 Mail for this domain does not go to this account's turn", false
	}
	if g.turn.named(name) {
		return "", true
	}
	return "450 4.3.2 Mail for this domain waits for a turn of its own", true
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
