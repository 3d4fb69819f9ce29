package postfix

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

const sample = `{"queue_name": "deferred", "queue_id": "4ABC12345", "arrival_time": 1700000000, "message_size": 4096, "forced_expire": false, "sender": "a@b.example", "recipients": [{"address": "x@acme.example", "delay_reason": "connect: \"refused\""}, {"address": "y@acme.example"}]}
{"queue_name": "active", "queue_id": "3aBcDeFgHiJkLm", "arrival_time": 1700000001, "message_size": 1, "forced_expire": true, "sender": "MAILER-DAEMON", "recipients": []}
`

// collect reads a listing whole; the error is its last element.
func collect(r io.Reader) (all []mta.Entry, failed error) {
	for e, err := range ReadQueue(r) {
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, nil
}

func TestAListingIsReadEntryByEntry(t *testing.T) {
	t.Parallel()
	want := []mta.Entry{
		{Queue: "deferred", ID: "4ABC12345", Arrival: time.Unix(1700000000, 0).UTC(), Size: 4096, Sender: "a@b.example",
			Recipients: []mta.Recipient{{Address: "x@acme.example", Reason: `connect: "refused"`}, {Address: "y@acme.example"}}},
		{Queue: "active", ID: "3aBcDeFgHiJkLm", Arrival: time.Unix(1700000001, 0).UTC(), Size: 1, Expiring: true, Recipients: []mta.Recipient{}},
	}
	got, err := collect(iotest.OneByteReader(strings.NewReader(sample)))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// A message that the operator put on hold waits for nobody, and does again when it is taken off.
func TestMailOnHoldDoesNotWait(t *testing.T) {
	t.Parallel()
	postfixtest.RequirePostfix(t)
	port, err := postfixtest.FreePort() // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	p := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{
		"relay_domains": "acme.example", "relay_transport": fmt.Sprintf("relay:[127.0.0.1]:%d", port),
	}})
	in := Instance{p.ConfigDir()}
	for range 2 {
		o, err := postfixtest.Send(p.Addr(), "", postfixtest.Mail{From: "s@outside.example", To: []string{"a@acme.example"}, Data: []byte("Subject: x\r\n\r\n")})
		if err != nil || !o.Accepted() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	var ids []string
	if err := p.WaitQueue("two deferred messages", func(q []postfixtest.Entry) bool {
		ids = ids[:0]
		for _, e := range q {
			if e.Queue == "deferred" {
				ids = append(ids, e.ID)
			}
		}
		return len(ids) == 2
	}); err != nil {
		t.Fatal(err)
	}
	held := ids[0]
	for _, step := range []struct {
		option  string
		waiting int
		missing []string
	}{{"-h", 1, []string{held}}, {"-H", 2, nil}} {
		if _, err := in.run(t.Context(), held+"\n", "postsuper", step.option, "-"); err != nil {
			t.Fatal(err)
		}
		waiting := 0
		for e, err := range in.Queue(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if m := e.Waiting(); len(m.Recipients) > 0 {
				waiting++
			}
		}
		missing, err := in.Missing(t.Context(), ids)
		if waiting != step.waiting || !slices.Equal(missing, step.missing) || err != nil {
			t.Errorf("after postsuper %s %d messages wait, %v are missing, %v; want %d and %v", step.option, waiting, missing, err, step.waiting, step.missing)
		}
	}
}

func TestAMessageMayHaveFiftyThousandRecipients(t *testing.T) {
	t.Parallel()
	recipient := `{"address": "` + strings.Repeat("u", 60) + `@acme.example", "delay_reason": "` + strings.Repeat("r", 200) + `"}`
	line := `{"queue_name": "hold", "queue_id": "4ABC12345", "recipients": [` + strings.Repeat(recipient+", ", 49999) + recipient + "]}\n"
	got, err := collect(strings.NewReader(line))
	if err != nil || len(got) != 1 || len(got[0].Recipients) != 50000 {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func TestABadListingIsAnErrorAndNeverAShorterQueue(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		r    io.Reader
		want error
	}{
		"cut in a line":    {strings.NewReader(sample[:len(sample)-20]), mta.ErrTruncated},
		"without line end": {strings.NewReader(sample[:len(sample)-1]), mta.ErrTruncated},
		"read error":       {io.MultiReader(strings.NewReader(sample), iotest.ErrReader(errors.New("gone"))), mta.ErrTruncated},
		"not JSON":         {strings.NewReader(sample + "Mail queue is empty\n"), nil},
		"no ID":            {strings.NewReader("{}\n"), nil},
		"ID of an option":  {strings.NewReader(`{"queue_id": "-f"}` + "\n"), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := collect(c.r)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func FuzzReadQueue(f *testing.F) {
	f.Add(sample)
	f.Add("{}\n")
	f.Add(`{"queue_id":"ABCDEF","recipients":[{"address":null}]}` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for e, err := range ReadQueue(strings.NewReader(text)) {
			if err == nil && !queueID.MatchString(e.ID) {
				t.Errorf("impossible ID %q", e.ID)
			}
			n++
		}
		if text != "" && n == 0 {
			t.Errorf("%q reads as an empty queue", text)
		}
	})
}

func TestQueueOfARealPostfix(t *testing.T) {
	t.Parallel()
	postfixtest.RequirePostfix(t)
	sink := postfixtest.RunSink(t)
	sink.Stop()
	host, port, _ := strings.Cut(sink.Addr(), ":")
	p := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{
		"relay_domains": "acme.example other.example", "relay_transport": fmt.Sprintf("relay:[%s]:%s", host, port),
	}})
	in := Instance{p.ConfigDir()}
	if path, err := in.FlushSocket(t.Context()); err != nil || path != filepath.Join(p.QueueDir(), "public", "flush") {
		t.Errorf("the socket of flush(8) is %s, %v", path, err)
	}
	if running, err := in.Running(t.Context()); err != nil || !running {
		t.Errorf("running: %v, %v", running, err)
	}
	for _, to := range []string{"a@acme.example", "b@acme.example", "c@other.example"} {
		o, err := postfixtest.Send(p.Addr(), "", postfixtest.Mail{From: "s@outside.example", To: []string{to}, Data: []byte("Subject: x\r\n\r\n")})
		if err != nil || !o.Accepted() {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	deferred := func(q []postfixtest.Entry) bool {
		for _, e := range q {
			if e.Queue != "deferred" {
				return false
			}
		}
		return len(q) == 3
	}
	if err := p.WaitQueue("three deferred messages", deferred); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for e, err := range in.Queue(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids[e.Recipients[0].Address] = e.ID
	}
	for range in.Queue(t.Context()) {
		break // leaving early must not hang or leave a process
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	if err := in.Release(t.Context(), ids["b@acme.example"]); err != nil {
		t.Fatal(err)
	}
	got, err := sink.WaitMessages(1)
	if err != nil || got[0].Recipients[0] != "b@acme.example" {
		t.Fatalf("released: %+v, %v", got, err)
	}
	if err := in.Flush(t.Context(), "other.example"); err != nil {
		t.Fatal(err)
	}
	if got, err = sink.WaitMessages(2); err != nil || got[1].Recipients[0] != "c@other.example" {
		t.Fatalf("flushed: %+v, %v", got, err)
	}
	if err := in.Flush(t.Context(), "elsewhere.example"); err == nil || !strings.Contains(err.Error(), "fast_flush_domains") {
		t.Errorf("a domain of which Postfix keeps no log, which flush(8) says and postqueue does not: %v", err)
	}
	sink.Stop()
	if err := in.Return(t.Context(), ids["a@acme.example"], "0000000000"); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitLog("status=force-expired, returned to sender"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "-f", "ALL\n", "../x"} {
		if in.Release(t.Context(), bad) == nil || in.Return(t.Context(), bad) == nil {
			t.Errorf("%q passes as a queue ID", bad)
		}
	}
	failed := Instance{"/nonexistent"}
	n := 0
	for _, err := range failed.Queue(t.Context()) {
		n++
		if err == nil {
			t.Error("a command that fails lists an entry")
		}
	}
	if n != 1 {
		t.Errorf("a command that fails yields %d elements, want one error", n)
	}
}
