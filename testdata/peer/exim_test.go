package peer

import (
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

func TestEximKeepsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	e := RunExim(t)
	content := "Subject: x\r\n\r\n.\r\n..dots\r\n8-bit \xe4\r\n\r\n"
	m := postfixtest.Mail{From: "s@x.example", To: []string{"a@acme.example"}, Data: []byte(content)}
	if o, err := postfixtest.Send(e.Addr(), "", m); err != nil || !o.Accepted() {
		t.Fatalf("%+v, %v", o, err)
	}
	var got [][]byte
	err := postfixtest.Wait("the message", func() bool {
		var err error
		got, err = e.Messages()
		return err == nil && len(got) == 1
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.ReplaceAll(content, "\r\n", "\n"); string(got[0]) != want {
		t.Errorf("it kept %q, want %q", got[0], want)
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	if err := e.Start(); err != nil {
		t.Errorf("it does not start again: %v", err)
	}
}
