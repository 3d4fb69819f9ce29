package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mailbag/meter"
)

// etrn decides over ETRN with the replies of RFC 1985, section 5.3. A domain that is nobody's here has one too: behind us
// Postfix would say 554, which clients of ETRN such as fetchmail take for a broken server.
func (p *Policy) etrn(ctx context.Context, r *request) decision {
	directory := p.cfg.Accounts.Directory()
	if directory == nil {
		return decision{deferred, "458 4.3.0 Queuing is not possible at the moment, please try again later"}
	}
	node := string(r.etrnDomain)
	if r.exim() { // Postfix has done both
		if node = strings.TrimLeft(node, "@#"); !plainDomain(node) {
			return decision{rejected, "501 5.5.4 Syntax: ETRN domain"}
		}
	}
	a, domain := domainOf(directory, node)
	if a == nil {
		return decision{rejected, "459 4.7.1 Mail of this domain is not held here"}
	}
	if !mayFlush(a, string(r.clientAddress)) {
		return decision{rejected, "459 4.7.1 ETRN for this domain is not allowed from your address"}
	}
	if a.Suspended {
		return decision{rejected, "459 4.7.1 Service for this domain is suspended, please call your provider"}
	}
	if a.Mode == meter.Backup {
		return p.tryNow(ctx, r, a, domain)
	}
	turns := p.cfg.Turns
	open := turns != nil && a.Mode != meter.ETRN && turns.TurnOpen(ctx, a)
	switch {
	case open: // what waits is part of it
		return granted(r, "252 2.0.0 OK, pending messages for node %s started", domain)
	case a.Mode != meter.ETRN:
		return decision{rejected, fmt.Sprintf("459 4.7.1 Mail of this domain is not fetched by ETRN but by %s", fetchedBy[a.Mode])}
	case turns == nil:
		return notOpened
	}
	return p.openTurn(ctx, r, a, domain)
}

// openTurn answers ETRN for an account whose mail is held.
func (p *Policy) openTurn(ctx context.Context, r *request, a *meter.Account, domain string) decision {
	client, reply := string(r.clientAddress), fmt.Sprintf(queuing, domain)
	if r.exim() {
		switch w, err := p.cfg.Waiting.Waiting(ctx, a.ID, domain); {
		case err != nil: // a turn tells
		case w.Messages == 0:
			p.askedInVain(ctx, a)
			return granted(r, "251 2.0.0 OK, no messages waiting for node %s", domain)
		default:
			reply = fmt.Sprintf("253 2.0.0 OK, %d pending messages for node %s started", w.Messages, domain)
		}
	}
	if err := p.cfg.Turns.OpenTurn(ctx, a, client); err != nil {
		if n, ok := p.notOpened.Allow(); ok { // ETRN needs no log-in
			p.log.Warn("ETRN opened no turn", "account", a.Name, "client", client, "error", err, "more", n)
		}
		if errors.Is(err, ErrUnreachable) {
			return decision{deferred, "458 4.4.1 Your mail server cannot be reached, please try again later"}
		}
		return notOpened
	}
	return granted(r, "%s", reply)
}

// vainTime is for the ledger to take that somebody asked in vain, who waits for the answer.
const vainTime = time.Second

// askedInVain notes that the account's customer asked, which no turn tells.
func (p *Policy) askedInVain(ctx context.Context, a *meter.Account) {
	ctx, cancel := context.WithTimeout(ctx, vainTime)
	defer cancel()
	if err := p.cfg.Waiting.Called(ctx, a.ID); err != nil { // why is in the log of who follows the ledger
		p.log.Debug("a call in vain could not be recorded", "account", a.Name, "error", err)
	}
}

// tryNow answers ETRN for a backup account. One attempt at a time is made for a domain, however often a client asks.
func (p *Policy) tryNow(ctx context.Context, r *request, a *meter.Account, domain string) decision {
	if !r.exim() {
		return granted(r, queuing, domain)
	}
	if p.cfg.Flusher == nil {
		return notOpened
	}
	if _, trying := p.trying.LoadOrStore(domain, nil); !trying {
		defer p.trying.Delete(domain)
		ctx, end := context.WithTimeout(ctx, eximWaits)
		defer end()
		if err := p.cfg.Flusher.Flush(ctx, domain); err != nil {
			if n, ok := p.notOpened.Allow(); ok {
				p.log.Warn("ETRN had the MTA try nothing", "account", a.Name, "domain", domain, "error", err, "more", n)
			}
			return notOpened
		}
	}
	return granted(r, queuing, domain)
}

const queuing = "250 2.0.0 OK, queuing for node %s started"

// granted is what ETRN is answered that is let be. Postfix has words of its own then, and tries what it can deliver by
// itself. Exim says what it is told, and has nothing to do.
func granted(r *request, reply string, about ...any) decision {
	if !r.exim() {
		return decision{flushed, "OK"}
	}
	return decision{flushed, fmt.Sprintf(reply, about...)}
}

var notOpened = decision{deferred, "458 4.3.0 Delivery on ETRN is not possible now, please try again later"}

var fetchedBy = map[meter.Mode]string{meter.ATRN: "ATRN", meter.POP3: "POP3"}

// mayFlush reports whether a client, as the MTA names it, may say ETRN for the account.
func mayFlush(a *meter.Account, client string) bool {
	addr, err := netip.ParseAddr(client)
	return err == nil && a.MayFlush(addr)
}
