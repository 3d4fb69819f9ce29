package postfix

import (
	"slices"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

func TestSubmittedMailHasTheNullSender(t *testing.T) {
	t.Parallel()
	sink := postfixtest.RunSink(t)
	p := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{"default_transport": "smtp", "relayhost": "[" + sink.Addr()[:9] + "]" + sink.Addr()[9:]}})
	in := Instance{p.ConfigDir()}
	const text = "Subject: hello\n\n.\nthe dot is no end\n"
	if err := in.Submit(t.Context(), text, "boss@elsewhere.example", `"b c"@elsewhere.example`); err != nil {
		t.Fatal(err)
	}
	got, err := sink.WaitMessages(time.Minute, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m := got[0]; m.From != "" || len(m.Recipients) != 2 || !slices.Contains(m.Recipients, `"b c"@elsewhere.example`) {
		t.Errorf("it arrived from %q for %q", m.From, m.Recipients)
	}
	if err := in.Submit(t.Context(), text); err == nil {
		t.Error("a message to nobody was submitted")
	}
}
