package eximtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// victimDir tells a copy of the test program to start an instance there and to wait for its end.
const victimDir = "EXIMTEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	in, err := New(dir, Config{})
	if err == nil {
		err = in.Start()
	}
	if err == nil {
		fmt.Println("started", in.root.id)
	} else {
		fmt.Println(err)
	}
	select {}
}

func TestEximEndsWhenTheTestIsKilled(t *testing.T) {
	t.Parallel()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), victimDir+"="+postfixtest.ServerDir(t, "exim"))
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	id, started := strings.CutPrefix(strings.TrimSpace(line), "started ")
	if !started {
		t.Errorf("the instance did not start: %q, %v", line, err)
	}
	victims := root{id: id}
	if len(victims.processes()) == 0 {
		t.Error("no process of the instance was found")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed
	if err := postfixtest.Wait("the end of every process of the instance", func() bool { return len(victims.processes()) == 0 }); err != nil {
		t.Errorf("%v: %v", err, victims.processes())
	}
}
