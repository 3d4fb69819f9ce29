package turn

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
)

// An mta holds mail and delivers what it is told to release, as Postfix does: by LMTP to the account's
// socket where there is one, several messages at a time, and again only when it is told to again.
type mta struct {
	sockets string
	workers int

	mu       sync.Mutex
	queue    map[string]letter
	returned map[string]string // by ID: the 5yz reply
	busy     map[string]bool   // released and in work: another release does nothing
	stuck    map[string]bool   // a release does nothing
	ident    string            // what XFORWARD says in place of the ID; "": the ID
	uses     bool              // the extensions that it is offered
	released int
	tried    map[string]bool // released at least once
	taken    func() int      // how many messages the customer's server has, for atOnce
	atOnce   int             // the most that were released at a time and not taken
	gate     chan struct{}
	soft     bool // soft_bounce = yes
	working  sync.WaitGroup
}

type letter struct {
	from    string
	to      []string
	content string
}

func newMTA(t *testing.T) *mta {
	m := &mta{sockets: t.TempDir(), workers: 20, queue: map[string]letter{}, returned: map[string]string{}, busy: map[string]bool{}, stuck: map[string]bool{}, tried: map[string]bool{}}
	m.gate = make(chan struct{}, m.workers)
	t.Cleanup(m.working.Wait)
	return m
}

// Listen is Config.Listen.
func (m *mta) Listen(ctx context.Context, account string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "unix", m.socket(account))
}

func (m *mta) socket(account string) string { return filepath.Join(m.sockets, account) }

// Missing is Config.Missing.
func (m *mta) Missing(_ context.Context, ids []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var missing []string
	for _, id := range ids {
		if _, held := m.queue[id]; !held {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

func (m *mta) Flush(context.Context, string) error { return nil }

func (m *mta) Release(_ context.Context, ids ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.released++
		l, held := m.queue[id]
		if !held || m.busy[id] || m.stuck[id] {
			continue
		}
		m.busy[id] = true
		m.tried[id] = true
		if m.taken != nil {
			m.atOnce = max(m.atOnce, len(m.tried)-m.taken())
		}
		m.working.Go(func() {
			m.gate <- struct{}{}
			left := m.deliver(id, l)
			<-m.gate
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.busy, id)
			if len(left) == 0 {
				delete(m.queue, id)
			} else {
				l.to = left
				m.queue[id] = l
			}
		})
	}
	return nil
}

// deliver returns the recipients that are left.
func (m *mta) deliver(id string, l letter) (left []string) {
	_, domain, _ := strings.Cut(l.to[0], "@")
	account, _, _ := strings.Cut(domain, ".")
	conn, err := net.Dial("unix", m.socket(account))
	if err != nil {
		return l.to
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	say := func(command string) string {
		if command != "" {
			fmt.Fprintf(conn, "%s\r\n", command)
		}
		var reply string
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return "400 gone"
			}
			if reply += line; len(line) < 4 || line[3] != '-' {
				return reply
			}
		}
	}
	ident := id
	if m.ident != "" {
		ident = m.ident
	}
	mail, notify := "MAIL FROM:<"+l.from+"> SIZE=100", ""
	for _, command := range []string{"", "LHLO mx.provider.example", "XFORWARD NAME=[UNAVAILABLE] IDENT=" + ident, "MAIL"} {
		if command == "MAIL" {
			command = mail
		}
		reply := say(command)
		if reply[0] != '2' {
			return l.to
		}
		if m.uses && strings.HasPrefix(command, "LHLO") {
			if !strings.Contains(reply, "SIZE") {
				mail = "MAIL FROM:<" + l.from + ">"
			}
			if strings.Contains(reply, "8BITMIME") {
				mail += " BODY=8BITMIME"
			}
			if strings.Contains(reply, "DSN") {
				mail, notify = mail+" RET=HDRS", " NOTIFY=FAILURE"
			}
		}
	}
	var accepted []string
	for _, to := range l.to {
		if reply := say("RCPT TO:<" + to + ">" + notify); reply[0] == '2' {
			accepted = append(accepted, to)
		} else {
			left = append(left, to)
		}
	}
	if len(accepted) == 0 {
		return left
	}
	if reply := say("DATA"); reply[0] != '3' {
		return l.to
	}
	fmt.Fprintf(conn, "%s.\r\n", strings.ReplaceAll("\r\n"+l.content, "\r\n.", "\r\n..")[2:])
	for _, to := range accepted {
		switch reply := say(""); reply[0] {
		case '2':
		case '5':
			if m.soft {
				left = append(left, to)
			}
			m.mu.Lock()
			m.returned[id] = reply
			m.mu.Unlock()
		default:
			left = append(left, to)
		}
	}
	return left
}

// idle reports whether the MTA has nothing in work.
func (m *mta) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.busy) == 0
}

func (m *mta) held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// A house is a mail system with a ledger, its turns, and the accounts globex and hooli, of which globex
// has two domains.
type house struct {
	*mta
	t        *testing.T
	database string
	ledger   *meter.Ledger
	follower *meter.Follower
	bounds   atomic.Pointer[Bounds]
	turns    *Turns
	sent     int
}

// A plan is after what a house is built.
type plan struct {
	Config
	Bounds
}

func newHouse(t *testing.T, change func(*plan)) *house {
	t.Helper()
	h := &house{mta: newMTA(t), t: t, database: filepath.Join(t.TempDir(), "mailbag.db")}
	var err error
	h.ledger, err = meter.Open(t.Context(), h.database, meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ledger.Close() })
	for _, a := range []meter.Account{
		{Name: "globex", Mode: meter.ATRN, Domains: []string{"globex.example", "globex.test"}},
		{Name: "hooli", Mode: meter.ATRN, Domains: []string{"hooli.example"}},
	} {
		a.Recipients, a.Copies = meter.AnyRecipient, meter.PerRecipient
		if err := h.ledger.AddAccount(t.Context(), a, nil); err != nil {
			t.Fatal(err)
		}
	}
	cfg := plan{Config{Ledger: h.ledger, Release: h.mta, Listen: h.mta.Listen, Missing: h.mta.Missing, Hostname: "mx.provider.example"},
		Bounds{Window: 50, MaxTurns: 10, FirstWait: 5 * time.Second, IdleWait: 50 * time.Millisecond}}
	h.follower = meter.Follow(context.Background(), h.ledger, discard, nil)
	t.Cleanup(h.follower.Close)
	cfg.Accounts = h.follower
	if change != nil {
		change(&cfg)
	}
	h.bounds.Store(&cfg.Bounds)
	cfg.Config.Bounds = func() Bounds { return *h.bounds.Load() }
	h.turns, err = New(cfg.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.turns.Shutdown(context.WithoutCancel(t.Context())) })
	return h
}

// bound changes the bounds, also while turns are open.
func (h *house) bound(change func(*Bounds)) {
	b := *h.bounds.Load()
	change(&b)
	h.bounds.Store(&b)
}

func (h *house) account(name string) *meter.Account {
	return h.follower.Directory().Account(name)
}

// hold puts a message into the queue, and into the index where it comes by SMTP.
func (h *house) hold(indexed bool, content string, to ...string) (id string) {
	h.t.Helper()
	h.sent++
	id = fmt.Sprintf("Q%07d", h.sent)
	h.mta.mu.Lock()
	h.queue[id] = letter{"a@sender.example", to, content}
	h.mta.mu.Unlock()
	if indexed {
		h.index(id, int64(len(content)), to...)
	}
	return id
}

// index notes a message that waits.
func (h *house) index(id string, size int64, to ...string) {
	h.t.Helper()
	m := meter.QueuedMessage{ID: id, Recipients: to}
	accounts, domains := m.Accounts(h.follower.Directory())
	r := meter.NewRecorder(h.ledger, nil)
	defer r.Close()
	err := r.Record(meter.Message{Instance: id, QueueID: id, Size: size, At: time.Now(), Accounts: accounts, Domains: domains}, nil)
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) waiting(account string) int64 {
	h.t.Helper()
	w, err := h.ledger.Waiting(h.t.Context(), h.account(account).ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return w.Messages
}

// record is the latest turn.
func (h *house) record() meter.Turn {
	h.t.Helper()
	turns, err := h.ledger.Turns(h.t.Context(), "", 1)
	if err != nil || len(turns) != 1 {
		h.t.Fatalf("%d turns are recorded, %v", len(turns), err)
	}
	return turns[0]
}
