package policy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"mailbag/meter"
)

// A flusher tries nothing.
type flusher struct {
	fail    error
	tried   chan string
	release chan struct{} // closed: it may return
}

func (f *flusher) Flush(ctx context.Context, domain string) error {
	f.tried <- domain
	select {
	case <-f.release:
		return f.fail
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newFlusher(fail error) *flusher {
	f := &flusher{fail, make(chan string, 10), make(chan struct{})}
	close(f.release)
	return f
}

func TestEximsETRNIsAnsweredAsRFC1985HasIt(t *testing.T) {
	t.Parallel()
	noTurn := turns{fail: errors.New("mailbag-turnd does not answer")}
	for _, test := range []struct {
		name   string
		turns  *turns
		domain string
		client string
		action string
	}{
		{"with mail", &turns{}, "acme.example", "192.0.2.9", "253 2.0.0 OK, 1 pending messages for node acme.example started"},
		{"in another spelling", &turns{}, "@ACME.Example", "192.0.2.9", "253 2.0.0 OK, 1 pending messages for node acme.example started"},
		{"without mail", &turns{}, "xn--bcher-kva.example", "192.0.2.9", "251 2.0.0 OK, no messages waiting for node xn--bcher-kva.example"},
		{"in its letters", &turns{}, "#bücher.example", "192.0.2.9", "251 2.0.0 OK, no messages waiting for node xn--bcher-kva.example"},
		{"atrn with a turn open", &turns{open: map[string]bool{"listed": true}}, "listed.example", "127.0.0.1", "252 2.0.0 OK, pending messages for node listed.example started"},
		{"backup", &turns{}, "Spare.example", "198.51.100.7", "250 2.0.0 OK, queuing for node spare.example started"},
		{"backup from elsewhere", &turns{}, "spare.example", "192.0.2.9", "459 4.7.1 ETRN for this domain is not allowed from your address"},
		{"not now", &noTurn, "acme.example", "192.0.2.9", "458 4.3.0 Delivery on ETRN is not possible now, please try again later"},
		{"nobody's", &turns{}, "other.example", "192.0.2.9", "459 4.7.1 Mail of this domain is not held here"},
		{"no domain", &turns{}, "", "192.0.2.9", "501 5.5.4 Syntax: ETRN domain"},
		{"two words", &turns{}, "acme.example acme.example", "192.0.2.9", "501 5.5.4 Syntax: ETRN domain"},
		{"what Exim would expand", &turns{}, "${run{/bin/id}}", "192.0.2.9", "501 5.5.4 Syntax: ETRN domain"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, customers(), func(c *Config) { c.Turns, c.Flusher = test.turns, newFlusher(nil) })
			path := d.listen(t, "policy", d.ServeRequests)
			asExim(t, path, end(shortID))
			if got := asExim(t, path, eximText("protocol_state=ETRN", "etrn_domain="+test.domain, "client_address="+test.client)); got != test.action {
				t.Errorf("answered %q, want %q", got, test.action)
			}
			if opened := test.turns.asked(); (len(opened) > 0) != (strings.HasPrefix(test.action, "253") || test.turns == &noTurn) {
				t.Errorf("answered %q after opening %q", test.action, opened)
			}
			acme := d.follower.Directory().Account("acme")
			known, err := d.ledger.Listed(t.Context(), meter.Month{}, acme.ID)
			if err != nil || len(known) != 1 || known[0].Called.IsZero() == strings.HasPrefix(test.action, "251") {
				t.Errorf("answered %q to acme, of whom is known %+v, %v", test.action, known, err)
			}
		})
	}
}

func TestETRNHasEximTryWhatItHasForABackupDomainOnce(t *testing.T) {
	t.Parallel()
	f := &flusher{tried: make(chan string, 10), release: make(chan struct{})}
	d := openDesk(t, customers(), func(c *Config) { c.Flusher = f })
	path := d.listen(t, "policy", d.ServeRequests)
	etrn := eximText("protocol_state=ETRN", "etrn_domain=spare.example", "client_address=198.51.100.7")
	first := dial(t, path)
	first.send(etrn)
	if domain := <-f.tried; domain != "spare.example" {
		t.Errorf("it tries %q", domain)
	}
	if got := asExim(t, path, etrn); !strings.HasPrefix(got, "250 ") {
		t.Errorf("the second client is told %q", got)
	}
	close(f.release)
	if got := first.action(); !strings.HasPrefix(got, "250 ") || len(f.tried) > 0 {
		t.Errorf("the first client is told %q, after %d attempts more", got, len(f.tried))
	}
	f.fail = errors.New("the helper does not answer")
	if got := asExim(t, path, etrn); !strings.HasPrefix(got, "458 ") || len(f.tried) != 1 {
		t.Errorf("without the MTA a client is told %q, after %d attempts", got, len(f.tried))
	}
}
