package postfixtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// victimDir tells a copy of the test program to start an instance there and to wait for its end.
const victimDir = "POSTFIXTEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	in, err := New(dir, Config{})
	if err == nil {
		err = in.Start()
	}
	fmt.Println("started:", err)
	select {}
}

func TestPostfixEndsWhenTheTestIsKilled(t *testing.T) {
	t.Parallel()
	RequirePostfix(t)
	dir := ServerDir(t, "postfix")
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), victimDir+"="+dir)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(line, "<nil>") {
		t.Errorf("the instance did not start: %q, %v", line, err)
	}
	if len(processesOf(t, dir)) == 0 {
		t.Error("no process of the instance was found")
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed
	err = Wait("the end of every process of the instance", func() bool { return len(processesOf(t, dir)) == 0 })
	if err != nil {
		t.Errorf("%v: %v", err, processesOf(t, dir))
	}
}
