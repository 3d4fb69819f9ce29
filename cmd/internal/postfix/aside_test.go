package postfix

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

var since = time.Date(2026, 3, 1, 4, 5, 6, 0, time.UTC)

func standAside(t *testing.T, in Instance) mta.Plan {
	t.Helper()
	return applied(t)(in.PlanAside(t.Context(), since))
}

func stepIn(t *testing.T, in Instance) mta.Plan {
	t.Helper()
	return applied(t)(in.PlanIn(t.Context()))
}

func applied(t *testing.T) func(mta.Plan, error) mta.Plan {
	return func(p mta.Plan, err error) mta.Plan {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		apply(t, p)
		return p
	}
}

// written is what stands in the three files, to the byte.
func written(t *testing.T, in Instance) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"main.cf", "master.cf", FormerFile} {
		text, err := os.ReadFile(filepath.Join(in.ConfigDir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func TestStandingAsideAndSteppingInLeaveNoTrace(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\nsmtpd_milters = inet:127.0.0.1:1\nrelay_domains = a.example\n")
	before := written(t, in)
	for name, plan := range map[string]func(context.Context) (mta.Plan, error){
		"aside": func(ctx context.Context) (mta.Plan, error) { return in.PlanAside(ctx, since) }, "in": in.PlanIn,
	} {
		if _, err := plan(t.Context()); !errors.Is(err, mta.ErrNotWired) {
			t.Errorf("step %s without a wiring: %v", name, err)
		}
	}
	setUp(t, in, longHold())
	wired := written(t, in)
	if p := stepIn(t, in); !p.Empty() {
		t.Errorf("stepping in changes what is wired:\n%s", p.Diff())
	}
	standAside(t, in)
	aside := written(t, in)
	if aside == wired {
		t.Error("standing aside changes nothing")
	}
	again, err := in.PlanAside(t.Context(), since.Add(time.Hour))
	if err != nil || !again.Empty() || !again.AsideSince().Equal(since) {
		t.Errorf("standing aside twice: %v, since %v\n%s", err, again.AsideSince(), again.Diff())
	}
	// Setup does what else there is to do, and leaves mailbag where it stands.
	if p := setUp(t, in, longHold()); !p.Empty() || !p.AsideSince().Equal(since) {
		t.Errorf("setup does not leave mailbag aside: since %v\n%s", p.AsideSince(), p.Diff())
	}
	edit(t, in, "-X", "mailbag-turn_recipient_limit")
	edit(t, in, "-e", "mailbag-turn_recipient_limit=1")
	if p := setUp(t, in, longHold()); p.Empty() {
		t.Error("setup does nothing while mailbag stands aside")
	}
	found := check(t, in, longHold())
	if want := "fault: mailbag stands aside since 2026-03-01T04:05:06Z: "; len(found) == 0 || !strings.HasPrefix(found[0], want) {
		t.Errorf("check does not say %q first: %q", want, found)
	}
	for _, f := range found {
		if strings.Contains(f, "is not what mailbag needs") || strings.Contains(f, "master.cf") {
			t.Errorf("check misses what is gone for the moment: %s", f)
		}
	}
	stepIn(t, in)
	if got := shown(t, in); !strings.Contains(got, PolicySocket) {
		t.Errorf("stepping in does not bring back the policy service:\n%s", got)
	}
	edit(t, in, "-X", "mailbag-turn_recipient_limit") // it moved to another line
	setUp(t, in, longHold())
	standAside(t, in)
	remove(t, in)
	if diff := cmp.Diff(before, written(t, in)); diff != "" {
		t.Errorf("a removal while mailbag stands aside does not restore: %s", diff)
	}
	setUp(t, in, longHold())
	wired = written(t, in)
	standAside(t, in)
	stepIn(t, in)
	if diff := cmp.Diff(wired, written(t, in)); diff != "" {
		t.Errorf("stepping in does not restore: %s", diff)
	}
}

func TestOthersMailGoesOnWhileMailbagStandsAside(t *testing.T) {
	t.Parallel()
	in, p, sink := provided(t, "", "", nil)
	start(t, p)
	if got := replies(t, p, "127.0.0.2", "user@mx.provider.example"); !strings.HasPrefix(got[0], "4") && !strings.HasPrefix(got[0], "5") {
		t.Errorf("without a tap a recipient is taken: %q", got)
	}
	standAside(t, in)
	// An smtpd that was waiting for its next client may take one more.
	var o postfixtest.Outcome
	err := postfixtest.Wait("others' mail to be taken", func() (taken bool) {
		var err error
		o, err = postfixtest.Send(p.Addr(), "127.0.0.2", postfixtest.Mail{From: "a@outside.example",
			To: []string{"user@mx.provider.example", "user@elsewhere.example", "user@acme.example"}, Data: []byte("Subject: x\r\n\r\n")})
		return err == nil && o.Accepted()
	})
	if err != nil || !strings.HasPrefix(o.Recipients[0], "250") || !strings.HasPrefix(o.Recipients[1], "250") ||
		!strings.HasPrefix(o.Recipients[2], "451 4.3.0") || !strings.Contains(o.Recipients[2], "put off since 2026-03-01T04:05:06Z") {
		t.Errorf("%+v, %v", o, err)
	}
	c, err := postfixtest.Dial(p.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Say("EHLO client.example"); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.Say("ETRN acme.example"); err != nil || !strings.HasPrefix(reply, "458 4.3.0") {
		t.Errorf("ETRN: %q, %v", reply, err)
	}
	// What programs on the host send goes on, too.
	if err := in.Submit(t.Context(), "Subject: x\n\n", "user@acme.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Error(err)
	}
	d := runDaemon(t, p)
	stepIn(t, in)
	if err := postfixtest.Wait("mail for ours to be taken", func() bool { return send(t, p, "Subject: x\r\n\r\n").Accepted() }); err != nil {
		t.Error(err)
	}
	if d.count("EOM") != 1 || d.count("RCPT x@acme.example") != 1 {
		t.Error("what came in afterwards was not checked or not counted")
	}
}

// A service with lines of its own follows where it uses our names.
func TestServicesThatNameOurSocketsDoNotStandAside(t *testing.T) {
	t.Parallel()
	in, _ := configured(t, "compatibility_level = 3.6\n")
	edit(t, in, "-Me", "587/inet=587 inet n - y - - smtpd -o smtpd_milters=$mailbag_milter", "588/inet=588 inet n - y - - smtpd -o { smtpd_milters="+formerTap+" }")
	setUp(t, in, wiring())
	standAside(t, in)
	found := strings.Join(check(t, in, wiring()), "\n")
	if strings.Contains(found, "587/inet") || !strings.Contains(found, "warning: master.cf: the service 588/inet asks mailbag-policyd in its -o smtpd_milters") {
		t.Errorf("check says\n%s", found)
	}
}
