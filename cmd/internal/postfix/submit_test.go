package postfix

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
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
	got, err := sink.WaitMessages(1)
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

// bulk is a text that takes a while to hand over.
func bulk() string {
	return "Subject: bulk\n\n" + strings.Repeat(strings.Repeat("x", 78)+"\n", 60_000) + "the end\n"
}

// submitAndDie is the environment variable by which a second process of this test learns what to do: it submits bulk
// by the Postfix whose directory that names, and is killed meanwhile.
const submitAndDie = "MAILBAG_TEST_SUBMIT"

func TestASubmissionThatIsKilledIsWholeOrNone(t *testing.T) {
	if dir := os.Getenv(submitAndDie); dir != "" {
		fmt.Println(Instance{dir}.Submit(context.Background(), bulk(), "boss@elsewhere.example"))
		os.Exit(0)
	}
	t.Parallel()
	sink := postfixtest.RunSink(t)
	p := postfixtest.Run(t, postfixtest.Config{Main: map[string]string{"default_transport": "smtp", "relayhost": "[" + sink.Addr()[:9] + "]" + sink.Addr()[9:]}})
	// sendmail is quick: now and then it is over before it was seen, and the submission was not killed.
	messages, killed := 0, 0
	for ; killed < 3 && messages < 50; messages++ {
		submitter := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		submitter.Env = append(os.Environ(), submitAndDie+"="+p.ConfigDir())
		if err := submitter.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- submitter.Wait() }()
		for over := false; !over; {
			select {
			case <-ended:
				over = true
			case <-time.After(time.Millisecond):
				if hasChild(submitter.Process.Pid) {
					submitter.Process.Kill()
					<-ended
					killed++
					over = true
				}
			}
		}
	}
	if killed == 0 {
		t.Fatalf("of %d submissions none was killed; the test shows nothing", messages)
	}
	got, err := sink.WaitMessages(messages)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		if !strings.HasSuffix(strings.TrimRight(string(m.Data), "\r\n"), "the end") {
			t.Errorf("a message of %d octets arrived in part", len(m.Data))
		}
	}
}

// hasChild reports whether a process has started another that runs a program of its own.
func hasChild(pid int) bool {
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	lists, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range lists {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, child := range strings.Fields(string(children)) {
			if exe, err := os.Readlink("/proc/" + child + "/exe"); err == nil && exe != own {
				return true
			}
		}
	}
	return false
}
