package eximtest

import (
	"bufio"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

func TestInstanceTakesMailAndRelaysIt(t *testing.T) {
	t.Parallel()
	sink := postfixtest.RunSink(t)
	began := time.Now()
	in := Run(t, Config{Relays: map[string]string{"customer.example": sink.Addr()}, Local: []string{"local.example"}})
	t.Logf("built and started within %v", time.Since(began).Round(time.Millisecond))
	outcome, err := postfixtest.Send(in.Addr(), "", postfixtest.Mail{
		From: "x@elsewhere.example",
		To:   []string{"a@customer.example", "b@local.example", "c@elsewhere.example"},
		Data: []byte("Subject: hello\r\n\r\n.dot\r\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"250", "250", "550"} {
		if !strings.HasPrefix(outcome.Recipients[i], want) {
			t.Errorf("recipient %d is answered %q, want %s", i, outcome.Recipients[i], want)
		}
	}
	messages, err := sink.WaitMessages(1)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(messages[0].Data), "Subject: hello\r\n\r\n.dot\r\n") {
		t.Errorf("it arrived as %q", messages[0].Data)
	}
	if err := in.WaitQueue("an empty queue", func(q []postfixtest.Entry) bool { return len(q) == 0 }); err != nil {
		t.Error(err)
	}
	// To everywhere from its own network; what nobody configured is discarded.
	outcome, err = postfixtest.Send(in.Addr(), "127.0.0.2", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"c@elsewhere.example"}, Data: []byte("\r\n")})
	if err != nil || !outcome.Accepted() {
		t.Errorf("%+v, %v", outcome, err)
	}
	if err := in.WaitLog("=> :blackhole: <c@elsewhere.example>"); err != nil {
		t.Error(err)
	}
}

func TestRestlessInstanceTriesAgain(t *testing.T) {
	t.Parallel()
	sink, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sink.Stop)
	in := Run(t, Config{Relays: map[string]string{"customer.example": sink.Addr()}, Restless: true})
	if _, err := postfixtest.Send(in.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@customer.example"}, Data: []byte("\r\n")}); err != nil {
		t.Fatal(err)
	}
	if err := in.WaitQueue("the message to be deferred", func(q []postfixtest.Entry) bool {
		return len(q) == 1 && q[0].Queue == "deferred" && strings.Contains(q[0].Recipients[0].DelayReason, "Connection refused")
	}); err != nil {
		t.Fatal(err)
	}
	if n := in.Waiting(); n != 1 {
		t.Errorf("%d messages wait", n)
	}
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.WaitMessages(1); err != nil {
		t.Error(err)
	}
}

func TestRootHasEximAndNoPostfix(t *testing.T) {
	t.Parallel()
	in := Prepare(t, Config{})
	if err := os.WriteFile(in.Path("seen"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	script := `id -u Debian-exim
		test -u /usr/sbin/exim4 && test -e ` + in.Path("seen") + `
		test ! -e /usr/sbin/postconf && test ! -e /etc/postfix
		echo here >/var/lib/mailbag/there; touch /etc/only-here`
	if out, err := in.Command("/bin/sh", "-exc", script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(in.Root("/var/lib/mailbag/there")); err != nil || string(text) != "here\n" {
		t.Errorf("from outside it is %q, %v", text, err)
	}
	for _, path := range []string{"/etc/only-here", "/var/lib/mailbag/there"} {
		if exists(path) {
			t.Errorf("%s is on the machine", path)
		}
	}
}

func TestReloadReadsTheConfigurationAgain(t *testing.T) {
	t.Parallel()
	in := Run(t, Config{})
	if err := os.WriteFile(in.Root("/etc/exim4/conf.d/main/01_banner"), []byte("smtp_banner = changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := in.Reload(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", in.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if greeting, err := bufio.NewReader(conn).ReadString('\n'); err != nil || greeting != "220 changed\r\n" {
		t.Errorf("it greets with %q, %v", greeting, err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	in, err := New(postfixtest.ServerDir(t, "exim"), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	stray := in.Command("/bin/sh", "-c", "trap '' TERM HUP; sleep 1000")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	if n := len(in.root.processes()); n < 2 {
		t.Errorf("%d processes are in the root", n)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	_ = stray.Wait()
	if pids := in.root.processes(); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), in.Path()) {
		t.Errorf("mounts are left, %v", err)
	}
}

// What is held is in the named queue, and a flush tries that too.
func TestWhatIsHeldIsListedAndFlushed(t *testing.T) {
	t.Parallel()
	in := Run(t, Config{Main: "MAIN_ACL_CHECK_RCPT = hold", Parts: map[string]string{
		"acl/50_hold":       "hold:\n  accept\n    queue = mailbag\n    control = queue\n",
		"router/050_hold":   "hold:\n  driver = accept\n  domains = held.example\n  transport = hold\n",
		"transport/50_hold": "hold:\n  driver = lmtp\n  socket = /run/mailbag/nobody.sock\n  user = Debian-exim\n",
	}})
	outcome, err := postfixtest.Send(in.Addr(), "", postfixtest.Mail{From: "", To: []string{"a@held.example", "b@held.example"}, Data: []byte("Subject: x\r\n\r\n")})
	if err != nil || !outcome.Accepted() {
		t.Fatalf("%+v, %v", outcome, err)
	}
	waits := func(reason string) func(q []postfixtest.Entry) bool {
		return func(q []postfixtest.Entry) bool {
			return len(q) == 1 && q[0].Queue == "held" && q[0].Sender == "" && len(q[0].Recipients) == 2 &&
				q[0].Recipients[1].Address == "b@held.example" && strings.Contains(q[0].Recipients[1].DelayReason, reason)
		}
	}
	if err := in.WaitQueue("the message to be held", waits("")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(in.Log(), "==") || in.Waiting() != 1 {
		t.Errorf("it was tried, or is not counted: %d\n%s", in.Waiting(), in.Log())
	}
	if err := in.FlushQueue(); err != nil {
		t.Fatal(err)
	}
	if err := in.WaitQueue("the message to be tried", waits("No such file or directory")); err != nil {
		t.Fatal(err)
	}
	if err := postfixtest.Wait("Exim to have nothing to do", func() bool { return !in.Busy() }); err != nil {
		t.Error(err)
	}
}
