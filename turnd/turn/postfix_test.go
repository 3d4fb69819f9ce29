package turn

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailbag/turnd/release"

	postfixtest "mailbag/testdata/postfix"
)

// A content filter that passes on what it is told (smtp_send_xforward_command, FILTER_README) gives Postfix an IDENT,
// which Postfix gives to us in place of its own queue ID.
func TestPostfixBringsMessagesThatCameThroughAFilter(t *testing.T) {
	t.Parallel()
	in := postfixtest.Prepare(t, postfixtest.Config{Master: []string{"mailbag-turn unix - - n - 0 lmtp -o lmtp_send_xforward_command=yes"}})
	socket := in.Path("globex.sock")
	for name, value := range map[string]string{
		"relay_domains":                   "globex.example",
		"transport_maps":                  "inline:{ globex.example=mailbag-turn:unix:" + socket + " }",
		"defer_transports":                "mailbag-turn",
		"smtpd_authorized_xforward_hosts": "127.0.0.0/8",
	} {
		if err := in.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(c *plan) {
		c.Release, c.Missing, c.Window = release.Postfix{Socket: filepath.Join(in.QueueDir(), "public", "flush")}, nil, minWindow
		c.FirstWait = time.Minute
		c.Listen = func(ctx context.Context, _ string) (net.Listener, error) {
			l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
			if err == nil {
				err = os.Chmod(socket, 0o666)
			}
			return l, err
		}
	})

	const n = 3 * minWindow // the window is refilled only by messages that are known again
	filter, err := postfixtest.Dial(in.Addr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer filter.Close()
	if reply, err := filter.Say("EHLO client.example"); err != nil || reply[0] != '2' {
		t.Fatal(reply, err)
	}
	for range n {
		if reply, err := filter.Say("XFORWARD IDENT=FOREIGN"); err != nil || reply[0] != '2' {
			t.Fatal(reply, err)
		}
		m := postfixtest.Mail{From: "a@sender.example", To: []string{"a@globex.example"}, Data: []byte("Subject: x\r\n\r\nhello\r\n")}
		if o, err := filter.Send(m); err != nil || !o.Accepted() {
			t.Fatal(o, err)
		}
	}
	var held []postfixtest.Entry
	err = in.WaitQueue("all is held", func(all []postfixtest.Entry) bool {
		held = nil
		for _, e := range all {
			if e.Queue == "deferred" {
				held = append(held, e)
			}
		}
		return len(held) == n
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range held {
		h.index(e.ID, e.Size, e.Recipients[0].Address)
	}
	server := customer(t, nil)
	if err := h.reverse("globex", server); err != nil {
		t.Fatal(err)
	}
	if got := len(server.Messages()); got != n || h.waiting("globex") != 0 || h.record().Outcome != "done" {
		t.Errorf("%d of %d arrived, %d wait by the index, recorded %+v", got, n, h.waiting("globex"), h.record())
	}
}
