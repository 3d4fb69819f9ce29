package popd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
	"mailbag/meter/login"
)

// late is a view of the ledger that is as old as its owner likes, as the daemon's may be for a moment.
type late struct {
	now
	seen atomic.Pointer[meter.Directory]
}

func (l *late) Directory() *meter.Directory { return l.seen.Load() }

func (l *late) look(d *desk) {
	all, err := l.Load(d.t.Context())
	d.must(err)
	l.seen.Store(all)
}

// again removes a mailbox and gives it to the next owner, whose password is the same.
func (d *desk) again(account, mailbox string) {
	d.t.Helper()
	address, err := meter.ParseAddress(mailbox)
	d.must(err)
	d.must(d.ledger.RemoveMailbox(d.t.Context(), account, address))
	d.must(d.ledger.AddMailbox(d.t.Context(), account, address, verifier))
}

// orphans are what is stored for nobody, one in a line.
func (d *desk) orphans(account string) []string {
	d.t.Helper()
	all, err := d.ledger.Load(context.Background())
	d.must(err)
	list, err := d.store.Orphans(all, account)
	d.must(err)
	var lines []string
	for _, o := range list {
		lines = append(lines, strings.Join([]string{o.Account, o.Mailbox, strings.Repeat("i", int(o.Messages))}, " "))
	}
	slices.Sort(lines)
	return lines
}

func TestNextOwnerOfAnAddressSeesNoMailOfTheFormer(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put("Subject: first\r\n\r\n", "arthur@dent.example")
	former := d.enter("arthur@dent.example")
	d.again("dent", "Arthur@dent.example")
	next := d.enter("ARTHUR@dent.example")
	next.say("STAT", "+OK 0 0")
	next.say("QUIT", "+OK")
	// Who was in his mailbox goes on in it, and not in the other one.
	d.put("Subject: second\r\n\r\n", "arthur+x@dent.example")
	if text := former.fetch(1); !strings.Contains(text, "Subject: first") {
		t.Errorf("the former owner reads %q", text)
	}
	former.say("RETR 2", "-ERR")
	former.say("QUIT", "+OK")
	next = d.enter("arthur@dent.example")
	next.say("STAT", "+OK 1 ")
	if text := next.fetch(1); !strings.Contains(text, "Subject: second") {
		t.Errorf("the next owner reads %q", text)
	}
	if got := d.orphans(""); !slices.Equal(got, []string{"dent arthur@dent.example i"}) {
		t.Errorf("the orphans are %q", got)
	}
	if got := d.orphans("solo"); len(got) != 0 {
		t.Errorf("the orphans of another account are %q", got)
	}
}

// The message was accepted for the former owner: its recipient is known before its content.
func TestMailUnderWayToAFormerOwnerDoesNotComeToTheNext(t *testing.T) {
	t.Parallel()
	view := new(overtaken)
	d := openDesk(t, func(cfg *Config) {
		view.now = cfg.Accounts.(now)
		cfg.Accounts = view
	})
	view.then = func() { d.again("dent", "arthur@dent.example") }
	d.put(body, "arthur@dent.example")
	d.enter("arthur@dent.example").say("STAT", "+OK 0 0")
	if got := d.orphans("dent"); !slices.Equal(got, []string{"dent arthur@dent.example i"}) {
		t.Errorf("the orphans are %q", got)
	}
}

// overtaken is a view of the ledger in which something changes once somebody has looked.
type overtaken struct {
	now
	once sync.Once
	then func()
}

func (o *overtaken) Fresh(ctx context.Context) (*meter.Directory, error) {
	d, err := o.now.Fresh(ctx)
	o.once.Do(o.then)
	return d, err
}

// The daemon's view of the ledger may be older than the change of the owner.
func TestMailForTheNextOwnerDoesNotComeToTheFormer(t *testing.T) {
	t.Parallel()
	view := new(late)
	d := openDesk(t, func(cfg *Config) {
		view.now = cfg.Accounts.(now)
		cfg.Accounts = view
	})
	d.account(meter.Account{Name: "ford", Domains: []string{"ford.example", "moved.example"}, CatchAll: true})
	view.look(d)
	d.again("dent", "arthur@dent.example")
	d.must(d.ledger.RemoveDomain(t.Context(), "ford", "moved.example"))
	d.must(d.ledger.AddDomain(t.Context(), "dent", "moved.example"))
	d.put(body, "arthur@dent.example", "a@moved.example")
	view.look(d)
	for login, want := range map[string]string{"arthur@dent.example": "+OK 1 ", "dent": "+OK 1 ", "ford": "+OK 0 "} {
		d.enter(login).say("STAT", want)
	}
	if got := d.orphans(""); len(got) != 0 {
		t.Errorf("the orphans are %q", got)
	}
}

// A log-in takes its time, in which the mailbox may come to somebody else.
func TestLogInIsToTheMailboxThatItBeganWith(t *testing.T) {
	t.Parallel()
	view := new(late)
	d := openDesk(t, func(cfg *Config) {
		view.now = cfg.Accounts.(now)
		cfg.Accounts = view
		var err error
		cfg.Logins, err = login.New(login.Config{Service: "popd", Accounts: view, Verifiers: view.now, Names: login.MailboxNames, Modes: []meter.Mode{meter.POP3}, Admit: Admit,
			Guard: &login.Guard{Wait: func(context.Context, time.Duration) error { return nil }}})
		if err != nil {
			t.Fatal(err)
		}
	})
	view.look(d)
	d.again("dent", "arthur@dent.example")
	c := d.dial()
	c.say("USER arthur@dent.example", "+OK")
	c.say("PASS secret word", "-ERR [SYS/TEMP] The mailbox was changed at this moment")
	c = d.enter("dent") // whose own has not changed
	c.say("QUIT", "+OK")
	view.look(d)
	d.enter("arthur@dent.example").say("QUIT", "+OK")
}

// A purge that was cut off leaves what nobody has, and what is left of it can be seen.
func TestHalfAMaildirIsAnOrphanToo(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	d.put(body, "arthur@dent.example", "han@solo.example")
	box := d.store.Maildir("dent", "arthur@dent.example").Path()
	d.must(os.Rename(filepath.Join(box, "new"), filepath.Join(box, "cur.left")))
	d.must(os.RemoveAll(filepath.Join(box, "cur")))
	d.must(os.Rename(filepath.Join(box, "cur.left"), filepath.Join(box, "cur")))
	d.must(os.RemoveAll(filepath.Join(box, "tmp")))
	d.again("dent", "arthur@dent.example")
	d.enter("arthur@dent.example").say("STAT", "+OK 0 0")
	if got := d.orphans("dent"); !slices.Equal(got, []string{"dent arthur@dent.example i"}) {
		t.Errorf("the orphans are %q", got)
	}
	d.must(d.store.PurgeMailbox("dent", "arthur@dent.example"))
	if got := d.orphans(""); len(got) != 0 {
		t.Errorf("after the purge the orphans are %q", got)
	}
	if n := d.stored("solo", "han@solo.example"); n != 1 {
		t.Error("another mailbox's mail is gone")
	}
}

func TestMailOfDeletedAccountsAndOfOtherLedgersIsOrphaned(t *testing.T) {
	t.Parallel()
	d := openDesk(t, nil)
	address := meter.Address{Local: `a "b"/ü,x`, Domain: "dent.example"}
	d.must(d.ledger.AddMailbox(t.Context(), "dent", address, verifier))
	d.put(body, address.String(), "ford@dent.example", "han@solo.example")
	if path, _, err := d.store.SetAside("dent", "nobody@dent.example"); path != "" || err != nil {
		t.Errorf("nothing was set aside in %q, %v", path, err)
	}
	path, was, err := d.store.SetAside("solo", "han@solo.example")
	if err != nil || was.Messages != 1 || !strings.HasPrefix(path, d.store.Maildir("solo", "han@solo.example").Path()+",") {
		t.Errorf("%+v were set aside in %q, %v", was, path, err)
	}
	d.enter("han@solo.example").say("STAT", "+OK 0 0")
	if _, was, err := d.store.SetAside("solo", ""); was.Messages != 1 || err != nil {
		t.Errorf("%+v were set aside, %v", was, err)
	}
	d.must(d.ledger.DeleteAccount(t.Context(), "dent"))
	want := []string{`dent  i`, `dent ` + address.String() + ` i`, "solo han@solo.example i"}
	if got := d.orphans(""); !slices.Equal(got, want) {
		t.Errorf("the orphans are %q, want %q", got, want)
	}
}
