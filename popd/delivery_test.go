package popd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
)

const body = "Subject: x\r\n\r\n.dot\r\n\xff 8 bit\r\n"

// head is what a message is given for one recipient.
func head(to string) string {
	return "Return-Path: <x@elsewhere.example>\r\nDelivered-To: " + to + "\r\nX-Envelope-To: " + to + "\r\n"
}

// content is what a mailbox has, message by message.
func (d *desk) content(login string) []string {
	d.t.Helper()
	c := d.enter(login)
	var n int
	if _, err := fmt.Sscanf(c.say("STAT", "+OK"), "+OK %d", &n); err != nil {
		d.t.Fatal(err)
	}
	all := []string{}
	for i := range n {
		all = append(all, c.fetch(i+1))
	}
	c.say("QUIT", "+OK")
	c.closed()
	return all
}

func TestMailGoesWhereItsAddressSays(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	long := strings.Repeat("l", 100)
	to := []string{"Arthur@DENT.example.", "arthur+spam@dent.example", "ford@dent.example", `"a b"@dent.example`, long + "@dent.example"}
	d.put(body, to...)
	for login, want := range map[string][]string{
		"arthur@dent.example": {head("Arthur@dent.example") + body, head("arthur+spam@dent.example") + body},
		"zaphod%dent.example": {},
		"@dent.example":       {head("ford@dent.example") + body, head(`"a b"@dent.example`) + body, head(long+"@dent.example") + body},
	} {
		got := d.content(login)
		slices.Sort(got) // copies are written at the same time
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s has (-want +got):\n%s", login, diff)
		}
	}
}

func TestSingleCopyListsEveryRecipient(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "a@once.example", "b@once.example", "ford@dent.example")
	want := "Return-Path: <x@elsewhere.example>\r\nDelivered-To: a@once.example\r\nDelivered-To: b@once.example\r\n" +
		"X-Envelope-To: a@once.example,\r\n\tb@once.example\r\n" + body
	if diff := cmp.Diff([]string{want}, d.content("once")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Another account's recipients are nobody's business.
	if diff := cmp.Diff([]string{head("ford@dent.example") + body}, d.content("dent")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRecipientsAreRefusedForAReason(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.must(d.ledger.AddAccount(t.Context(), meter.Account{Name: "relay", Mode: meter.Backup, Domains: []string{"relay.example"},
		Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil))
	d.account(meter.Account{Name: "gone", Domains: []string{"gone.example"}, CatchAll: true, Suspended: true})
	for to, want := range map[string]string{
		"han@solo.example":             "250 2.1.5",
		"han+x@solo.example":           "250 2.1.5",
		"leia@solo.example":            "550 5.1.1",
		"a@nobody.example":             "451 4.3.5", // the MTA's tables are wrong, or the account was deleted a moment ago
		"a@relay.example":              "451 4.3.5",
		"a@gone.example":               "450 4.2.1",
		"a@[192.0.2.1]":                "553 5.1.3",
		"\"a\rX-Bad: 1\"@dent.example": "553 5.1.3",
		"\"a\x00\"@dent.example":       "553 5.1.3",
		"a@dent.example\x01":           "553 5.1.3",
	} {
		if reply := d.deliver("x@elsewhere.example", body, to)[0]; !strings.HasPrefix(reply, want) {
			t.Errorf("%q: %s, want %s", to, reply, want)
		}
	}
	for _, from := range []string{"\"x\rBcc: y\"@elsewhere.example", "\"\x00\"@x.example"} {
		if reply := d.deliver(from, body, "ford@dent.example")[0]; !strings.HasPrefix(reply, "553") {
			t.Errorf("a sender %q: %s", from, reply)
		}
	}
	if n := d.stored("dent", ""); n != 0 {
		t.Errorf("%d messages were stored", n)
	}
}

func TestRecipientThatCameAMomentAgoIsTaken(t *testing.T) {
	t.Parallel()
	var d *desk
	var before *meter.Directory
	d = openDesk(t, func(cfg *Config) {
		accounts := cfg.Accounts.(now)
		before = accounts.Directory()
		cfg.Accounts = stale{accounts, before}
	})
	address, err := meter.ParseAddress("leia@solo.example")
	d.must(err)
	d.must(d.ledger.AddMailbox(t.Context(), "solo", address, verifier))
	d.account(meter.Account{Name: "young", Domains: []string{"young.example"}, CatchAll: true})
	d.put(body, "leia@solo.example", "a@young.example")
}

// stale shows the accounts as they were.
type stale struct {
	now
	then *meter.Directory
}

func (s stale) Directory() *meter.Directory { return s.then }

func TestBounceHasAnEmptyReturnPath(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	if reply := d.deliver("", body, "ford@dent.example")[0]; !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	if got := d.content("dent")[0]; !strings.HasPrefix(got, "Return-Path: <>\r\n") {
		t.Errorf("it is %q", got)
	}
}

func TestQuotaIsKeptAndRoomComesBack(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	message := func(size int) string { return "\r\n" + strings.Repeat("x", size) + "\r\n" }
	d.put(message(500), "a@tiny.example")
	if reply := d.deliver("x@elsewhere.example", message(500), "a@tiny.example")[0]; !strings.HasPrefix(reply, "452 4.2.2") {
		t.Errorf("above the quota: %s", reply)
	}
	// Each of the two would fit.
	replies := d.deliver("x@elsewhere.example", message(250), "a@tiny.example", "b@tiny.example")
	slices.Sort(replies)
	if !strings.HasPrefix(replies[0], "250") || !strings.HasPrefix(replies[1], "452 4.2.2") {
		t.Errorf("two copies: %q", replies)
	}
	c := d.enter("tiny")
	c.say("DELE 1", "+OK")
	c.say("QUIT", "+OK")
	d.put(message(500), "a@tiny.example")
	if left, err := os.ReadDir(filepath.Join(d.store.Maildir("tiny", "").Path(), "tmp")); err != nil || len(left) > 0 {
		t.Errorf("tmp has %v, %v", left, err)
	}
}

func TestQuotaCountsWhatIsBeingDelivered(t *testing.T) {
	t.Parallel()
	s := NewStore(t.TempDir(), time.Now)
	tiny := &meter.Account{Name: "tiny", Quota: 1000}
	settle, err := s.claim(tiny, 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.claim(tiny, 600); !errors.Is(err, errOverQuota) {
		t.Errorf("beside another on its way: %v, want %v", err, errOverQuota)
	}
	settle(false)
	if settle, err = s.claim(tiny, 600); err != nil {
		t.Fatalf("after the other failed: %v", err)
	}
	settle(true)
	if _, err := s.claim(tiny, 600); !errors.Is(err, errOverQuota) {
		t.Errorf("beside another that was delivered: %v, want %v", err, errOverQuota)
	}
}

func TestManyRecipientsAtOnce(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	var to []string
	for i := range 40 {
		to = append(to, fmt.Sprintf("user%d@dent.example", i))
	}
	large := strings.Repeat(strings.Repeat("x", 500)+"\r\n", 200)
	d.put(large, to...)
	if n := d.stored("dent", ""); n != 40 {
		t.Errorf("%d messages", n)
	}
	got := d.content("dent")
	slices.Sort(got)
	slices.Sort(to)
	for i, address := range to {
		if got[i] != head(address)+large {
			t.Errorf("the copy for %s is wrong", address)
		}
	}
}

func TestAbortedDeliveryLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, half := range map[string]func(*client){
		"DATA": func(c *client) {
			c.say("DATA", "354")
			fmt.Fprint(c, "Subject: half of it\r\n")
		},
		"BDAT":    func(c *client) { fmt.Fprint(c, "BDAT 100 LAST\r\nSubject: half of it\r\n") },
		"BDAT, 2": func(c *client) { fmt.Fprint(c, "BDAT 4\r\nSubjBDAT 100 LAST\r\nect: half of it\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, nil)
			c := d.envelope("ford@dent.example")
			half(c)
			c.Close()
			eventually(t, "the session to end", func() bool { return len(d.mta.Guests()) == 0 })
			left, err := os.ReadDir(filepath.Join(d.store.Maildir("dent", "").Path(), "tmp"))
			if err != nil || len(left) > 0 {
				t.Errorf("tmp has %v, %v", left, err)
			}
			if n := d.stored("dent", ""); n != 0 {
				t.Errorf("%d messages were stored", n)
			}
		})
	}
}

// envelope begins a message on a connection of its own.
func (d *desk) envelope(to ...string) *client {
	d.t.Helper()
	conn, err := net.Dial("unix", d.lmtp)
	d.must(err)
	d.t.Cleanup(func() { conn.Close() })
	c := d.talk(conn)
	c.want("220")
	c.say("LHLO x", "250-")
	for !strings.HasPrefix(c.line(), "250 ") {
	}
	c.say("MAIL FROM:<>", "250")
	for _, address := range to {
		c.say("RCPT TO:<"+address+">", "250")
	}
	return c
}

// A disk that fails is no reason to return mail, however the MTA sends it, and the connection goes on.
func TestStorageThatFailsDefersMail(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.must(os.MkdirAll(filepath.Dir(filepath.Dir(d.store.Maildir("dent", "").Path())), 0o700))
	d.must(os.WriteFile(filepath.Dir(d.store.Maildir("dent", "").Path()), nil, 0o600)) // where a directory should be
	content := "Subject: x\r\n\r\n" + strings.Repeat("x", 2*maxCommand) + "\r\n"
	c := d.envelope("ford@dent.example", "zaphod@dent.example")
	for range 2 {
		fmt.Fprintf(c, "BDAT %d LAST\r\n%s", len(content), content)
		c.want("451 4.3.0")
		c.want("451 4.3.0")
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<ford@dent.example>", "250")
		c.say("DATA", "354")
		fmt.Fprint(c, content, ".\r\n")
		c.want("451 4.3.0")
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<ford@dent.example>", "250")
		c.say("RCPT TO:<zaphod@dent.example>", "250")
	}
	for _, to := range [][]string{{"ford@dent.example", "han@solo.example"}, {"han@solo.example", "ford@dent.example"}} {
		for i, reply := range d.deliver("", content, to...) {
			if want := map[string]string{"ford@dent.example": "451 4.3.0", "han@solo.example": "250 2.1.5"}[to[i]]; !strings.HasPrefix(reply, want) {
				t.Errorf("with a copy for another, whose disk is well, %s: %s, want %s", to[i], reply, want)
			}
		}
	}
	if n := d.stored("solo", "han@solo.example"); n != 2 {
		t.Errorf("the other has %d messages", n)
	}
	if _, err := d.store.Stored("dent"); err == nil {
		t.Error("what cannot be read is counted")
	}
}

func TestCommandWithoutEndIsCutOff(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	conn, err := net.Dial("unix", d.lmtp)
	d.must(err)
	defer conn.Close()
	c := d.talk(conn)
	c.want("220")
	go conn.Write(make([]byte, 4*maxCommand))
	c.want("421")
	c.closed()
}

func TestMailboxesLieWhereNothingElseDoes(t *testing.T) {
	t.Parallel()
	s := NewStore("/store", time.Now)
	seen := map[string]string{}
	for _, key := range []string{
		"", "a@x.example", "..@x.example", ".@x.example", "../../etc@x.example", "a/b@x.example", "a%2fb@x.example", "a%2Fb@x.example", ".a@x.example",
		"%-a@x.example", "a b@x.example", "ä@x.example", "a\x00@x.example", "a@b@x.example", "a:2,@x.example", "catch-all@x.example",
		strings.Repeat("ä", 100) + "@x.example", strings.Repeat("ö", 100) + "@x.example",
	} {
		path := s.Maildir("acme", key).Path()
		if before, found := seen[path]; found {
			t.Errorf("%q and %q have the same Maildir %s", before, key, path)
		}
		seen[path] = key
		relative, err := filepath.Rel("/store/acme", path)
		if err != nil || strings.HasPrefix(relative, "..") {
			t.Errorf("%q lies at %s", key, path)
		}
		parts := strings.Split(relative, "/")
		if want := 3; key != "" && (len(parts) != want || parts[0] != "mailboxes" || parts[1] != "x.example") {
			t.Errorf("%q lies at %s", key, path)
		}
		for _, p := range parts {
			if len(p) > maxFolder || strings.HasPrefix(p, ".") || strings.ContainsRune(p, 0) {
				t.Errorf("%q lies at %q", key, path)
			}
		}
	}
}

func TestStoreCountsSweepsAndPurges(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "arthur@dent.example", "ford@dent.example", "han@solo.example")
	stored, err := d.store.Stored("dent")
	want := int64(len(strings.ReplaceAll(head("arthur@dent.example")+body+head("ford@dent.example")+body, "\r\n", "\n")))
	if stored != (Stored{2, want}) || err != nil {
		t.Errorf("stored are %+v, %v, want 2 messages of %d octets", stored, err, want)
	}
	old := filepath.Join(d.store.Maildir("dent", "arthur@dent.example").Path(), "tmp", "old")
	d.must(os.WriteFile(old, nil, 0o600))
	when := time.Now().Add(-40 * time.Hour)
	d.must(os.Chtimes(old, when, when))
	if n, err := d.store.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d swept, %v", n, err)
	}
	d.must(d.store.Purge("dent"))
	if stored, err := d.store.Stored("dent"); stored != (Stored{}) || err != nil {
		t.Errorf("after the purge there are %+v, %v", stored, err)
	}
	if n := d.stored("solo", "han@solo.example"); n != 1 {
		t.Error("another account's mail is gone")
	}
	if err := d.store.Purge(".."); err == nil {
		t.Error("a purge of .. was done")
	}
}

func TestAddressIsTheSameHoweverItsLettersAreEncoded(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.must(d.ledger.AddMailbox(t.Context(), "solo", meter.Address{Local: "jörg", Domain: "solo.example"}, verifier))
	d.put(body, "jo\u0308rg@solo.example", "JÖRG+x@solo.example")
	for _, name := range []string{"jörg@solo.example", "Jo\u0308rg@solo.example", "jo\u0308rg%solo.example"} {
		c := d.enter(name)
		c.say("STAT", "+OK 2 ")
		c.say("QUIT", "+OK")
	}
}
