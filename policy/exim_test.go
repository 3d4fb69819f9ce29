package policy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/testdata/peer"
)

// Queue IDs as Exim makes them, and from 4.97 on.
const (
	shortID = "1vOABC-0004xZ-2f"
	longID  = "1vOABC-00000004xZa-2fGh"
)

// eximText is a request as Exim's ACLs send it.
func eximText(attributes ...string) string {
	return requestText(append([]string{"policy_context=exim"}, attributes...)...)
}

// end is the request at the end of a message. What is said again replaces what stands here.
func end(id string, attributes ...string) string {
	all := []string{"protocol_state=END-OF-MESSAGE", "queue_id=" + id, "size=1000", "client_address=203.0.113.9",
		"recipient_domains=acme.example", "other_recipients=no", "received=", "fingerprint="}
	for _, a := range attributes {
		name, _, _ := strings.Cut(a, "=")
		all = slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		all = append(all, a)
	}
	return eximText(all...)
}

// asExim asks as ${readsocket} does: it closes its side behind the request, and takes what comes until the end.
func asExim(t testing.TB, path, text string) string {
	t.Helper()
	c := dial(t, path)
	defer c.Close()
	c.send(text)
	if err := c.Conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c.r)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer) == 0 {
		return ""
	}
	action, ends := strings.CutSuffix(string(answer), "\n\n")
	action, begins := strings.CutPrefix(action, "action=")
	if !begins || !ends || strings.Contains(action, "\n") {
		t.Fatalf("the answer is %q", answer)
	}
	return action
}

func TestEximsMessageIsCountedOnceForEachAccount(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	for _, id := range []string{shortID, longID, longID} { // whatever asks for the last one again
		text := end(id, "recipient_domains=other.example Box.Example B\u00dcCHER.example box.example. "+strings.Repeat("x", 5000)+" @ [192.0.2.1]", "other_recipients=yes")
		if got := asExim(t, path, text); got != "DUNNO" {
			t.Fatalf("answered %q", got)
		}
	}
	for _, account := range []string{"acme", "box"} {
		if got, want := d.used(t, account), (meter.Usage{Messages: 2, Bytes: 2000}); got != want {
			t.Errorf("%s used %+v, want %+v", account, got, want)
		}
	}
	d.wantDomains(t, "acme", meter.DomainUsage{Domain: "xn--bcher-kva.example", Usage: meter.Usage{Messages: 2, Bytes: 2000}})
	d.wantDomains(t, "box", meter.DomainUsage{Domain: "box.example", Usage: meter.Usage{Messages: 2, Bytes: 2000}})
	acme := d.follower.Directory().Account("acme").ID
	waiting, err := d.ledger.WaitingAfter(t.Context(), acme, []string{"xn--bcher-kva.example"}, meter.WaitingMessage{}, 10)
	if err != nil || len(waiting) != 2 || waiting[0].ID != longID || waiting[1].ID != shortID {
		t.Errorf("%+v waits, %v", waiting, err)
	}
	if other, err := d.ledger.HasWaiting(t.Context(), acme, "acme.example"); err != nil || other {
		t.Errorf("it waits in a domain that it is not for: %v, %v", other, err)
	}
}

func TestEximsMessageHasManyDomains(t *testing.T) {
	t.Parallel()
	many := account("many", meter.POP3)
	for i := range 1000 {
		many.Domains = append(many.Domains, fmt.Sprintf("a-domain-of-some-length-%03d.example", i))
	}
	d := openDesk(t, []meter.Account{many}, nil)
	path := d.listen(t, "policy", d.ServeRequests)
	if got := asExim(t, path, end(shortID, "recipient_domains="+strings.Join(many.Domains, " "))); got != "DUNNO" || d.used(t, "many").Messages != 1 {
		t.Errorf("answered %q, counted %+v", got, d.used(t, "many"))
	}
}

func TestEximsMessageIsDecidedAsTheMilterDoes(t *testing.T) {
	t.Parallel()
	tight := func(name string, on meter.OnLimit) meter.Account {
		a := account(name, meter.POP3, name+".example")
		a.Messages, a.OnLimit = 1, on
		return a
	}
	accounts := append(customers(), tight("puts-off", meter.Defer), tight("refuses", meter.Reject))
	for _, test := range []struct {
		name       string
		attributes []string
		spoil      func(*faults)
		action     string
	}{
		{"a limit that puts off", []string{"recipient_domains=puts-off.example"}, nil, limitDeferred.action},
		{"a limit that refuses", []string{"recipient_domains=refuses.example"}, nil, limitRejected.action},
		{"which others have no part in", []string{"recipient_domains=refuses.example", "other_recipients=yes"}, nil, limitDeferred.action},
		{"nor an account with room", []string{"recipient_domains=refuses.example acme.example"}, nil, limitDeferred.action},
		{"nobody's here", []string{"recipient_domains=other.example"}, nil, "DUNNO"},
		{"without a ledger", nil, func(f *faults) { f.unread.Store(true) }, unavailable.action},
		{"with one that cannot be written", nil, func(f *faults) { f.unavailable.Store(true) }, unavailable.action},
		{"nobody's here with one that cannot be written", []string{"recipient_domains=other.example"}, func(f *faults) { f.unavailable.Store(true) }, "DUNNO"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, accounts, nil)
			path := d.listen(t, "policy", d.ServeRequests)
			for i, account := range []string{"puts-off", "refuses"} {
				if got := asExim(t, path, end(fmt.Sprintf("1vOABC-0004x%d-2f", i), "recipient_domains="+account+".example")); got != "DUNNO" {
					t.Fatalf("the message before is answered %q", got)
				}
			}
			if test.spoil != nil {
				test.spoil(d.faults)
			}
			if got := asExim(t, path, end(shortID, test.attributes...)); got != test.action {
				t.Errorf("answered %q, want %q", got, test.action)
			}
		})
	}
}

func TestBadRequestOfEximsCostsTheConnectionAndCountsNothing(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	for _, attribute := range []string{
		"queue_id=", "queue_id=1vOABC 0004xZ 2f", "queue_id=" + strings.Repeat("x", 31), "queue_id=a@b",
		"size=", "size=-1", "size=1e3", "size=9007199254740993", "size=99999999999999999999",
		"fingerprint=1", "fingerprint=abcd", "fingerprint=" + strings.Repeat("x", 64), "fingerprint=" + strings.Repeat("ab", 33),
	} {
		if got := asExim(t, path, end(shortID, attribute)); got != "" {
			t.Errorf("%s is answered %q", attribute, got)
		}
	}
	if got := asExim(t, path, eximText("protocol_state=CANCEL", "queue_id=*")); got != "" {
		t.Errorf("a cancelled message that is none is answered %q", got)
	}
	if got := d.used(t, "acme"); got != (meter.Usage{}) {
		t.Errorf("%+v is counted", got)
	}
	if got := metric(t, d, "mailbag_policy_bad_requests_total"); got != 14 {
		t.Errorf("%v requests were bad", got)
	}
}

func TestPostfixIsNotTakenForExim(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	text := strings.Replace(end(shortID), "policy_context=exim", "policy_context=", 1)
	if got := asExim(t, path, text); got != "DUNNO" || d.used(t, "acme").Messages != 0 {
		t.Errorf("smtpd_end_of_data_restrictions: answered %q, counted %+v", got, d.used(t, "acme"))
	}
}

func TestEximsMessageIsTakenBackWhenItsClientHasGone(t *testing.T) {
	t.Parallel()
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	asExim(t, path, end(shortID))
	asExim(t, path, end(longID))
	for range 2 { // the second finds nothing
		if got := asExim(t, path, eximText("protocol_state=CANCEL", "queue_id="+shortID)); got != "DUNNO" {
			t.Errorf("answered %q", got)
		}
	}
	waitFor(t, "it is taken back", func() bool { return d.used(t, "acme") == meter.Usage{Messages: 1, Bytes: 1000} })
	waiting, err := d.ledger.WaitingAfter(t.Context(), d.follower.Directory().Account("acme").ID, nil, meter.WaitingMessage{}, 10)
	if err != nil || len(waiting) != 1 || waiting[0].ID != longID {
		t.Errorf("%+v waits, %v", waiting, err)
	}
}

// between does something in front of a Recorder.
type between struct {
	Recorder
	before func()
}

func (b between) Record(m meter.Message, answer func() error) error {
	b.before()
	return b.Recorder.Record(m, answer)
}

func TestEximsMessageIsTakenBackWhenNobodyWaitsForTheAnswer(t *testing.T) {
	t.Parallel()
	asked, gone := make(chan struct{}), make(chan struct{})
	d := openDesk(t, customers(), func(c *Config) {
		c.Recorder = between{c.Recorder, func() { close(asked); <-gone }}
	})
	c := dial(t, d.listen(t, "policy", d.ServeRequests))
	c.send(end(shortID))
	<-asked
	c.Close()
	close(gone)
	waitFor(t, "its end", func() bool { return metric(t, d, "mailbag_policy_milter_messages_total") == 1 })
	waitFor(t, "it is taken back", func() bool { return d.used(t, "acme") == meter.Usage{} })
}

func TestAnswerThatEximMayNotWaitForTakesTheMessageBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		took   time.Duration
		action string
		used   int64
	}{{eximWaits - time.Second, "DUNNO", 1}, {eximWaits + time.Second, "", 0}} {
		t.Run(test.took.String(), func(t *testing.T) {
			t.Parallel()
			var late atomic.Int64
			d := openDesk(t, customers(), func(c *Config) {
				c.Recorder = between{c.Recorder, func() { late.Store(int64(test.took)) }}
				now := c.Now
				now() // the first look is a minute before the others
				c.Now = func() time.Time { return now().Add(time.Duration(late.Load())) }
			})
			if got := asExim(t, d.listen(t, "policy", d.ServeRequests), end(shortID)); got != test.action {
				t.Errorf("answered %q", got)
			}
			waitFor(t, "what was not answered is not counted", func() bool { return d.used(t, "acme").Messages == test.used })
		})
	}
}

func TestMessageThatAFilterGivesBackToEximIsNotCountedAgain(t *testing.T) {
	t.Parallel()
	field := func(id string) string {
		return "received=from localhost ([127.0.0.1] helo=filter) by mx.example with esmtp (Exim 4.96) (envelope-from <s@client.example>) id " +
			"1vOZZZ-000000-0a for a@acme.example; Mon, 02 Mar 2026 10:00:01 +0100 from client.example ([203.0.113.9]) by mx.example with esmtps " +
			"(TLS1.3) tls TLS_AES_256_GCM_SHA384 (Exim 4.96) (envelope-from <s@client.example>) id " + id + " for a@acme.example; Mon, 02 Mar 2026 10:00:00 +0100"
	}
	for _, id := range []string{shortID, longID} {
		for _, test := range []struct {
			name     string
			received string
			client   string
			domains  string
			acme     int64
			box      int64
		}{
			{"by SMTP", field(id), "127.0.0.1", "acme.example", 1, 0},
			{"by sendmail", field(id), "", "acme.example", 1, 0},
			{"for another account too", field(id), "::1", "acme.example box.example", 1, 1},
			{"without a trace of it", "received=", "127.0.0.1", "acme.example", 2, 0},
			{"from elsewhere", field(id), "203.0.113.9", "acme.example", 2, 0},
			{"another's", field(id[:len(id)-1]), "127.0.0.1", "acme.example", 2, 0},
		} {
			t.Run(test.name+" "+id, func(t *testing.T) {
				t.Parallel()
				d := openDesk(t, customers(), nil)
				path := d.listen(t, "policy", d.ServeRequests)
				first := asExim(t, path, end(id))
				second := asExim(t, path, end("1vOABD-000000-01", test.received, "client_address="+test.client, "recipient_domains="+test.domains))
				if first != "DUNNO" || second != "DUNNO" {
					t.Errorf("answered %q and %q", first, second)
				}
				if acme, box := d.used(t, "acme").Messages, d.used(t, "box").Messages; acme != test.acme || box != test.box {
					t.Errorf("acme has %d messages and box %d, want %d and %d", acme, box, test.acme, test.box)
				}
			})
		}
	}
}

// Exim asks so at each attempt to deliver a message that could not be counted when it came.
func TestMessageThatEximAsksAboutAgainIsCountedOnceAndGoesOn(t *testing.T) {
	t.Parallel()
	tight := account("tight", meter.ATRN, "tight.example")
	tight.Messages, tight.OnLimit = 1, meter.Reject
	var later atomic.Int64
	d := openDesk(t, []meter.Account{tight}, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	path := d.listen(t, "policy", d.ServeRequests)
	ask := func(id string) string {
		return asExim(t, path, end(id, "client_address=", "recipient_domains=tight.example", "received= from root by mx.example with local id "+id+" for a@tight.example"))
	}
	for _, after := range []time.Duration{0, time.Minute, 30 * 24 * time.Hour} {
		later.Store(int64(after))
		if got := ask(longID); got != "DUNNO" {
			t.Errorf("answered %q after %v", got, after)
		}
	}
	later.Store(0)
	if got := ask(shortID); got != limitRejected.action {
		t.Errorf("another is answered %q", got)
	}
	if got := d.used(t, "tight").Messages; got != 1 {
		t.Errorf("%d are counted", got)
	}
}

func TestFingerprintIsEximsWord(t *testing.T) {
	t.Parallel()
	n := &noting{}
	d := openDesk(t, customers(), func(c *Config) {
		n.Recorder = c.Recorder
		c.Recorder = n
	})
	path := d.listen(t, "policy", d.ServeRequests)
	digest := strings.Repeat("0123456789ABCDEF", 4)
	asExim(t, path, end(shortID, "fingerprint="+digest))
	if want := (meter.Fingerprint{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}); n.last != want {
		t.Errorf("the fingerprint is %x", n.last)
	}
	asExim(t, path, end(longID))
	if n.last != (meter.Fingerprint{}) {
		t.Errorf("without a Message-ID it is %x", n.last)
	}
}

// TestEximHearsTheAnswer has a real Exim ask.
func TestEximHearsTheAnswer(t *testing.T) {
	t.Parallel()
	peer.RequireExim(t)
	d := openDesk(t, customers(), nil)
	path := d.listen(t, "policy", d.ServeRequests)
	ask := func(text string) string {
		configuration := fmt.Sprintf("begin acl\nask:\n accept message = ${readsocket{%s}{%s}{30s}{}{down}}\n", path, strings.ReplaceAll(text, "\n", `\n`))
		return peer.EximExpands(t, configuration, "${acl{ask}}")
	}
	for _, test := range []struct{ text, answer string }{
		{eximText("protocol_state=RCPT", "client_address=203.0.113.9", "recipient=nobody@listed.example"), "action=" + unknownUser.action},
		{end(shortID), "action=DUNNO"},
		{eximText("protocol_state=ETRN", "etrn_domain=acme.example", "client_address=203.0.113.9"), "action=459 4.7.1 ETRN for this domain is not allowed from your address"},
		{eximText("protocol_state=CANCEL", "queue_id="+longID), "action=DUNNO"},
	} {
		if got := ask(test.text); got != test.answer {
			t.Errorf("Exim hears %q, want %q", got, test.answer)
		}
	}
	if got := d.used(t, "acme"); got.Messages != 1 {
		t.Errorf("%+v is counted", got)
	}
}

// FuzzArrival looks for a request that is read as a message which cannot be.
func FuzzArrival(f *testing.F) {
	d := openDesk(f, customers(), nil)
	f.Add(shortID, "1000", "203.0.113.9", "acme.example box.example", "from a by b id "+longID+" for c", strings.Repeat("ab", 32))
	f.Add(longID, "0", "", "B\u00dcCHER.example other.example", "id id id; id\tx", "")
	f.Add("4bXyZ0zz", "9007199254740992", "::1", "${run{/bin/id}}", strings.Repeat("id x ", 100), strings.Repeat("AB", 16))
	f.Add("a@b", "-1", "unknown", ". .. @", "", "zz")
	f.Fuzz(func(t *testing.T, id, size, client, domains, received, fingerprint string) {
		m, err := d.arrivalOf(&request{queueID: []byte(id), size: []byte(size), clientAddress: []byte(client), domains: []byte(domains),
			received: []byte(received), fingerprint: []byte(fingerprint)})
		if err != nil {
			if _, is := errors.AsType[badInput](err); !is {
				t.Fatalf("it is the fault of %v", err)
			}
			return
		}
		accounts, own := 0, 0
		for _, a := range customers() {
			accounts, own = accounts+1, own+len(a.Domains)
		}
		switch {
		case m.instance != meter.SpoolInstance(id), strings.ContainsAny(id, "@ \n"), m.size < 0, m.size > meter.MaxLimit:
			t.Errorf("%q with the size %q is %+v", id, size, m)
		case len(m.accounts) > accounts, len(m.domains) > own, !slices.Equal(m.accounts, slices.Compact(slices.Clone(m.accounts))):
			t.Errorf("%q are for %v in %v", domains, m.accounts, m.domains)
		case len(m.passed) > passedLimit, len(m.passed) > 0 && m.client.IsValid() && !m.client.IsLoopback():
			t.Errorf("from %s %q passed", client, m.passed)
		}
	})
}
