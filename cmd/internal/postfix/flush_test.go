package postfix

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// logged are the sites of which flush(8) keeps a log.
func logged(t *testing.T, p *postfixtest.Instance) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(filepath.Join(p.QueueDir(), "flush"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestAFlushOfPostfixDoesNotMoveHeldMail(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]string{
		"default": "", "none": "fast_flush_domains =\n", "the operator's": "fast_flush_domains = $relay_domains, other.example\n", "others'": "fast_flush_domains = other.example\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed, err := postfixtest.NewSink() // never started
			if err != nil {
				t.Fatal(err)
			}
			host, port, _ := strings.Cut(closed.Addr(), ":")
			in, p, _ := provided(t, own+"maximal_backoff_time = 4000s\nmaximal_queue_lifetime = 5d\n",
				"held.example mailbag-turn:unix:/nowhere\nback.example relay:["+host+"]:"+port+"\n", nil)
			d := runDaemon(t, p)
			d.answer = func(a map[string]string) string {
				if a["protocol_state"] == "ETRN" {
					return "OK"
				}
				return "DUNNO"
			}
			start(t, p)
			// Two for back.example: the second is put off by qmgr, because the host did not answer for the first.
			for _, to := range []string{"a@held.example", "b@back.example", "c@back.example"} {
				o, err := postfixtest.Send(p.Addr(), "", postfixtest.Mail{From: "s@outside.example", To: []string{to}, Data: []byte("Subject: x\r\n\r\n")})
				if err != nil || !o.Accepted() {
					t.Fatalf("%+v, %v", o, err)
				}
				if err := p.WaitLog("to=<" + to + ">"); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.WaitQueue("all deferred", func(all []postfixtest.Entry) bool {
				return len(all) == 3 && !slices.ContainsFunc(all, func(e postfixtest.Entry) bool { return e.Queue != "deferred" })
			}); err != nil {
				t.Fatal(err)
			}
			if got := logged(t, p); !slices.Equal(got, []string{"back_example"}) {
				t.Errorf("flush(8) has logs of %q", got)
			}
			c, err := postfixtest.Dial(p.Addr(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, command := range []string{"EHLO client.example", "ETRN held.example", "ETRN back.example"} {
				if reply, err := c.Say(command); err != nil || !strings.HasPrefix(reply, "250") {
					t.Errorf("%s: %q, %v", command, reply, err)
				}
			}
			if _, err := in.run(t.Context(), "", "postqueue", "-s", "held.example"); err != nil {
				t.Error(err)
			}
			// flush(8) takes them one after the other, and so does qmgr.
			if err := postfixtest.Wait("mail for back.example to be tried again", func() bool {
				return strings.Count(p.Log(), "to=<b@back.example>") > 1 && strings.Count(p.Log(), "to=<c@back.example>") > 1
			}); err != nil {
				t.Error(err)
			}
			if n := strings.Count(p.Log(), "to=<a@held.example>"); n != 1 {
				t.Errorf("the held message was %d times in the active queue", n)
			}
		})
	}
}

// The queue manager would start again at every change of the accounts, and go through its queue from the front.
func TestTheQueueManagerReadsNoTables(t *testing.T) {
	t.Parallel()
	_, p, sink := provided(t, "fast_flush_domains = $relay_domains, other.example\n", "", nil)
	runDaemon(t, p)
	start(t, p)
	if o := send(t, p, "Subject: x\r\n\r\n"); !o.Accepted() {
		t.Fatalf("%+v", o)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Fatal(err)
	}
	if !reads(t, p, "trivial-rewrite", "routes.cdb") {
		t.Error("trivial-rewrite does not read the routes, or this test does not see it")
	}
	if reads(t, p, "qmgr", "routes.cdb") {
		t.Error("qmgr reads the routes")
	}
}

// reads reports whether a program of this Postfix has a file open.
func reads(t *testing.T, p *postfixtest.Instance, program, file string) bool {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, proc := range all {
		of, err := os.Readlink(proc + "/cwd")
		if name, _ := os.Readlink(proc + "/exe"); err != nil || of != p.QueueDir() || filepath.Base(name) != program {
			continue // of another Postfix, or ended meanwhile
		}
		found = true
		open, err := filepath.Glob(proc + "/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range open {
			if path, err := os.Readlink(fd); err == nil && filepath.Base(path) == file {
				return true
			}
		}
	}
	if !found {
		t.Errorf("no process %s was found", program)
	}
	return false
}
