package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	postfixtest "mailbag/testdata/postfix"
)

func TestRefusalIsToldFromWhatIsMeant(t *testing.T) {
	t.Parallel()
	s := sender{patient: &patient{settings: &settings.Settings{}}}
	local := trial{address: "postmaster@mx.example"}
	of := func(check meter.RecipientCheck) trial {
		return trial{&meter.Account{Name: "acme", Mode: meter.Backup, Recipients: check}, "a@acme.example"}
	}
	anybody, verified := of(meter.AnyRecipient), of(meter.VerifiedRecipient)
	for _, c := range []struct {
		to     trial
		screen bool
		reply  string
		want   verdict // empty: nothing is said
	}{
		{anybody, false, "250 2.1.5 Ok", ""},
		{anybody, false, "450 4.2.1 Mail for this domain is suspended", ""},
		{anybody, false, "552 5.2.2 The recipient's mail limit is reached", ""},
		{anybody, false, "451 4.3.0 Temporary lookup failure", illness},
		{anybody, false, "450 4.3.0 Mail cannot be accounted for at the moment", illness},
		{anybody, true, "450 4.3.2 Service currently unavailable", doubt},
		{anybody, false, "454 4.7.1 Relay access denied", illness},
		{anybody, false, "550 5.1.1 User unknown", illness},
		{anybody, false, "450 4.2.0 Greylisted", ""},
		{anybody, false, "451 4.7.1 Greylisting in action", doubt},
		{anybody, false, "554 5.7.1 Client host rejected", doubt},
		{verified, false, "450 4.1.1 unverified address: connect to mail.acme.example: Connection refused", doubt},
		{verified, false, "550 5.1.1 undeliverable address", ""},
		{verified, false, "451 4.3.0 Temporary lookup failure", illness},
		{local, false, "250 2.1.5 Ok", ""},
		{local, false, "451 4.3.5 Server configuration error", illness},
		{local, false, "452 4.3.1 Insufficient system storage", illness},
		{local, false, "450 4.2.0 Greylisted", doubt},
	} {
		code, text, _ := strings.Cut(c.reply, " ")
		r := reply{code: int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0'), lines: []string{text}}
		s.door.Screen = c.screen
		found := slices.DeleteFunc(s.judge(c.to, r), func(d diagnosis) bool { return d.Text == "" })
		switch {
		case c.want == "" && len(found) > 0, c.want != "" && (len(found) != 1 || found[0].Result != c.want || found[0].Remedy == "" || !strings.Contains(found[0].Text, c.reply)):
			t.Errorf("%s for %s: %+v, want %q", c.reply, c.to, found, c.want)
		}
	}
}

// An address that Postfix takes from nobody, or only with SMTPUTF8, is no sign of an illness; one in quotes wants them.
func TestOnlyAddressesThatPostfixTakesAreOffered(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--catch-all", "no")
	for _, address := range []string{"a%b@dent.example", "jörg@dent.example", `"two words"@dent.example`} {
		w.must("mailbox", "add", "dent", address, "--generate-password")
	}
	w.must("account", "add", "list", "--mode", "etrn", "--domain", "list.example", "--host", "192.0.2.7", "--network", "192.0.2.0/24", "--recipients", "list")
	w.must("recipient", "add", "list", "a!b@list.example", "joe@list.example")
	w.must("account", "add", "none", "--mode", "atrn", "--domain", "none.example", "--recipients", "list", "--generate-password")
	var offered []string
	for _, trial := range newPatient(t, w).trials(t.Context()) {
		offered = append(offered, trial.address)
	}
	if want := []string{`"two words"@dent.example`, "joe@list.example"}; !slices.Equal(offered, want) {
		t.Errorf("offered are %q, want %q", offered, want)
	}
}

func TestMailIsOfferedToAPostfixAndNeverSent(t *testing.T) {
	t.Parallel()
	in := postfixtest.Run(t, postfixtest.Config{})
	p := (&console{now: storyClock}).patient(byHand(time.Minute), &settings.Settings{}, postfix.Instance{ConfigDir: in.ConfigDir()})
	examined := func() diagnosis {
		t.Helper()
		p.admit(t.Context())
		found := slices.DeleteFunc(p.examineSMTP(t.Context()), func(d diagnosis) bool { return d.Text == "" })
		if len(found) != 1 {
			t.Fatalf("found %+v", found)
		}
		return found[0]
	}
	// Postfix is reloaded before each of its processes knows: one that is idle answers once more by the former settings.
	becomes := func(what string, result verdict, text string) {
		t.Helper()
		var d diagnosis
		if err := postfixtest.Wait(what, func() bool {
			d = examined()
			return d.Result == result && strings.Contains(d.Text, text)
		}); err != nil {
			t.Errorf("%v: found %+v", err, d)
		}
	}
	if d := examined(); d.Result != well || d.Text != "at "+in.Addr()+" mail is accepted for this host" {
		t.Errorf("found %+v", d)
	}
	if err := in.Set("smtpd_client_restrictions", "check_client_access static:{554 5.7.1 Not from here}"); err != nil {
		t.Fatal(err)
	}
	if err := in.Reload(); err != nil {
		t.Fatal(err)
	}
	becomes("the host's policy to refuse", doubt, "Not from here")
	if err := in.Set("smtpd_client_restrictions", "check_client_access cdb:/nowhere"); err != nil {
		t.Fatal(err)
	}
	if err := in.Reload(); err != nil {
		t.Fatal(err)
	}
	becomes("a table to be missing", illness, "451 4.3.")
	if queue, err := in.Queue(); err != nil || len(queue) > 0 {
		t.Errorf("something was sent: %v, %v", queue, err)
	}
	if err := in.Stop(); err != nil {
		t.Fatal(err)
	}
	found := sift(append([]diagnosis{{Part: "settings", Text: "read"}}, append(p.admit(t.Context()), p.examineSMTP(t.Context())...)...))
	if !slices.ContainsFunc(found, func(d diagnosis) bool {
		return d.Result == illness && strings.HasPrefix(d.Text, "Postfix does not run")
	}) {
		t.Errorf("where it is stopped: %+v", found)
	}
}
