package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	"mailbag/testdata/certificate"
	postfixtest "mailbag/testdata/postfix"
)

func TestDoctorSaysBeforeTheSetupThatItIsMissing(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	status, out, _ := w.run("doctor", "--within", "1m", "--json")
	if status != failed {
		t.Errorf("the status is %d", status)
	}
	var found []diagnosis
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	setups := 0
	for _, d := range found {
		if d.Result != well && (d.Text == "" || d.Remedy == "") {
			t.Errorf("%+v does not say what is so and what to do", d)
		}
		if strings.Contains(d.Remedy, "mailbag postfix setup") {
			setups++
		}
	}
	if setups != 1 {
		t.Errorf("setup is asked for %d times: %s", setups, out)
	}
	for _, want := range []string{"failed   setup       Postfix does not know of mailbag", "there is no ledger either", "failed   postfix     Postfix does not run"} {
		if _, out, _ := w.run("doctor", "--within", "1m"); !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestWhatFollowsFromAnIllnessIsLeftOut(t *testing.T) {
	t.Parallel()
	const remedy = "run: do"
	got := sift([]diagnosis{
		{Part: "settings", Result: well, Text: "read"},
		{Part: "popd", Result: illness, Text: "mail cannot be stored", after: []cause{fullDisk}, readings: []reading{{name: "lost", value: 1}}},
		{Part: "popd", Result: illness, Text: "another thing", after: []cause{noLedger}},
		{Part: "disk", Result: illness, Text: "full", cause: fullDisk},
		{Part: "ledger", Result: doubt, Text: "a doubt is no cause", cause: noLedger},
		{Part: "postfix", Result: illness, Text: "the first", Remedy: remedy}, {Part: "postfix", Result: illness, Text: "the second", Remedy: remedy},
		{Part: "units", readings: []reading{{name: "unit", value: 1}}},
	})
	var texts []string
	for _, d := range got {
		texts = append(texts, d.Text)
	}
	if want := []string{"read", "another thing", "full", "a doubt is no cause", "the first; and 1 more of the kind"}; !slices.Equal(texts, want) {
		t.Errorf("what is told: %q, want %q", texts, want)
	}
	if len(got[0].readings) != 2 {
		t.Errorf("what was measured is lost: %+v", got[0].readings)
	}
}

func TestLookThatHangsIsAFindingAndHoldsUpNone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	defer close(hang)
	got := sideBySide(ctx, postfixtest.Patience, look{"one", func(context.Context) []diagnosis { <-hang; return nil }},
		look{"two", func(context.Context) []diagnosis { cancel(); return []diagnosis{{Part: "two", Text: "well"}} }})
	if len(got) != 2 || got[0].Part != "one" || got[0].Result != illness || got[0].Remedy == "" || got[1].Text != "well" {
		t.Errorf("found: %+v", got)
	}
}

func TestLedgerIsLookedThroughWhereThatIsShort(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	p := newPatient(t, w)
	for _, c := range []struct {
		whole int64
		want  string
	}{{byHand(time.Minute).whole, "is sound and has 1 accounts"}, {byClock.whole, "is sound and has 1 accounts"}, {1, "leaves it to mailbag-backup"}} {
		p.pace.whole = c.whole
		if found := p.examineLedger(t.Context()); len(found) != 1 || found[0].Result != well || !strings.Contains(found[0].Text, c.want) {
			t.Errorf("up to %d octets: %+v", c.whole, found)
		}
	}
}

// What was broken off as the time was over tells nothing of what is wrong.
func TestPostfixThatCannotBeReadInTimeIsNotCalledBroken(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{})
	w := newWorkplace(t, postfix.Instance{ConfigDir: in.ConfigDir()})
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	p := newPatient(t, w)
	p.identity = &mta.Identity{Wired: true}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found := p.examineMTA(ctx); len(found) != 1 || !strings.HasPrefix(found[0].Text, "it could not be looked at within") {
		t.Errorf("found: %+v", found)
	}
	p.pace.first = 0
	for _, d := range p.admit(t.Context()) {
		if d.Part == "postfix" && !strings.HasPrefix(d.Text, "it c") {
			t.Errorf("found: %+v", d)
		}
	}
}

func TestCertificateIsJudgedByWhatCustomersWouldSay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
	if d := examineCertificate(files, "mx.example", time.Now()); d.Result != illness || !strings.Contains(d.Text, "TLS is not offered") {
		t.Errorf("without files: %+v", d)
	}
	certificate.New(t, "mx.example").Write(t, files.Certificate, files.Key)
	if d := examineCertificate(files, "mx.example", time.Now()); d.Result != doubt || !strings.Contains(d.Text, "signs itself") {
		t.Errorf("one that signs itself: %+v", d)
	}
	if d := examineCertificate(files, "mx.example", time.Now().Add(48*time.Hour)); d.Result != illness || !strings.Contains(d.Text, "ended on") {
		t.Errorf("one that ended: %+v", d)
	}
}

func TestCertificateIsLookedAtWhereCustomersGetIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &settings.Settings{TLS: settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}, Billing: settings.Billing{Location: time.UTC}}
	ctx, cancel := context.WithTimeout(t.Context(), postfixtest.Patience)
	defer cancel()
	p := &patient{settings: s}
	inFile, other := certificate.New(t, "mx.example"), certificate.New(t, "mx.example")
	inFile.Write(t, s.TLS.Certificate, s.TLS.Key)
	serve := func(config *tls.Config, script ...string) settings.Address {
		return scripted(t, config, false, script...)
	}
	shows := func(c *certificate.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c.Pair}}
	}
	turnd := []string{"220 mx", "EHLO", "250-mx\r\n250-STARTTLS\r\n250 ATRN", "STARTTLS", "220 go on", "EHLO", "250-mx\r\n250-AUTH PLAIN\r\n250 ATRN"}
	for what, c := range map[string]struct {
		at   settings.Address
		want string
	}{
		"that in the files": {serve(shows(inFile), turnd...), ""},
		"another one":       {serve(shows(other), turnd...), "warning: mailbag-turnd shows another certificate"},
		"none":              {serve(nil, "220 mx", "EHLO", "250-mx\r\n250 ATRN"), "failed: mailbag-turnd offers no TLS"},
	} {
		f := front{at: c.at}
		leaf, err := p.askTurnd(ctx, f)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		found := p.comparePresented("mailbag-turnd", []presented{{f, leaf}})
		if c.want == "" && found != nil || c.want != "" && (len(found) != 1 || !strings.HasPrefix(string(found[0].Result)+": "+found[0].Text, c.want)) {
			t.Errorf("%s: %+v", what, found)
		}
	}
}

func TestDaemonIsWellWhenItSaysWhatItShould(t *testing.T) {
	t.Parallel()
	secure := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mx.example").Pair}}
	ctx, cancel := context.WithTimeout(t.Context(), postfixtest.Patience)
	defer cancel()
	p := &patient{settings: &settings.Settings{}}
	policy := packet{text: "a=b\n\n", end: '\n', answer: "action="}.ask
	capa := "+OK\r\nSTLS\r\nUSER\r\n."
	for name, c := range map[string]struct {
		at  settings.Address
		tls bool
		ask func(context.Context, front) (*x509.Certificate, error)
		err string
	}{
		"policyd":            {scripted(t, nil, false, "", "", "", "", "action=DUNNO"), false, policy, ""},
		"policyd of others":  {scripted(t, nil, false, "220 mx"), false, policy, `the answer "220 mx\r\n" is none of the protocol`},
		"POP3":               {scripted(t, nil, false, "+OK", "CAPA", "+OK\r\nUSER\r\n."), false, askPOP3, ""},
		"POP3 with STLS":     {scripted(t, secure, false, "+OK", "CAPA", capa, "STLS", "+OK", "CAPA", capa), false, askPOP3, ""},
		"POP3 by TLS":        {scripted(t, secure, true, "+OK", "CAPA", "+OK\r\nUSER\r\n."), true, askPOP3, ""},
		"POP3 without users": {scripted(t, secure, true, "+OK", "CAPA", "+OK\r\nTOP\r\n."), true, askPOP3, "no log-in is offered"},
		"POP3 of a SMTP":     {scripted(t, nil, false, "220 mx"), false, askPOP3, `what answers says "220 mx"`},
		"no TLS":             {scripted(t, nil, false, "+OK"), true, askPOP3, "no TLS comes about"},
		"one that hangs up":  {scripted(t, nil, false), false, askPOP3, "no answer: the connection is closed at once"},
		"LMTP":               {scripted(t, nil, false, "220 mx", "LHLO", "250 mx", "MAIL", "250 yes", "RSET", "250 yes"), false, p.askDelivery, ""},
		"LMTP that refuses":  {scripted(t, nil, false, "220 mx", "LHLO", "250 mx", "MAIL", "451 4.3.0 no"), false, p.askDelivery, "451 4.3.0 no in answer to MAIL"},
		"LMTP of garbage":    {scripted(t, nil, false, "\x00\x01hello"), false, p.askDelivery, "is no SMTP or LMTP"},
		"turnd of others":    {scripted(t, nil, false, "220 mx", "EHLO", "250 mx"), false, p.askTurnd, "knows no ATRN"},
		"nobody":             {settings.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, false, askPOP3, "nobody answers: there is no such socket"},
	} {
		_, err := c.ask(ctx, front{at: c.at, tls: c.tls})
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDaemonThatHangsIsNamedWithItsSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deliver.sock")
	l, err := net.Listen("unix", path) // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond+lastWord)
	defer cancel()
	p := &patient{settings: &settings.Settings{}, pace: pace{all: time.Second}} // as long as both wait, to the second
	at := settings.Address{Network: "unix", Address: path}
	found := p.examineDaemon(ctx, "popd", settings.Address{}, []front{{at: at, ask: p.askDelivery}, {at: at, ask: askPOP3}})
	got := sift(append([]diagnosis{{Part: "settings", Text: "read"}}, found...))
	if len(got) != 2 || got[1].Result != illness || !strings.HasPrefix(got[1].Text, "mailbag-popd at "+at.String()+", "+at.String()+": no answer within") || got[1].cause != down("mailbag-popd") {
		t.Errorf("found: %+v", got)
	}
}

// scripted runs a server that says the even lines of a script, and between them waits for a line that begins with the odd
// one. An empty one is any, and is not answered.
func scripted(t *testing.T, config *tls.Config, fromTheStart bool, script ...string) settings.Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if fromTheStart {
				c = tls.Server(c, config)
			}
			play(c, config, script)
			c.Close()
		}
	}()
	return settings.Address{Network: "tcp", Address: l.Addr().String()}
}

func play(c net.Conn, config *tls.Config, script []string) {
	if len(script) == 0 {
		return
	}
	lines := bufio.NewReader(c)
	for i, text := range script {
		if i%2 == 0 {
			if text != "" {
				io.WriteString(c, text+"\r\n")
			}
			continue
		}
		if i > 1 && (script[i-2] == "STARTTLS" || script[i-2] == "STLS") {
			c = tls.Server(c, config)
			lines = bufio.NewReader(c)
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, text) {
			return
		}
	}
	lines.ReadString('\n') // the farewell
}

func TestDoctorTakesNoTimeThatIsNone(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	for _, within := range []string{"0s", "-5s", "1h", "soon"} {
		if status, _, errs := w.run("doctor", "--within", within); status != misuse {
			t.Errorf("--within %s: %d %s", within, status, errs)
		}
	}
}
