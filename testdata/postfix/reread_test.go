package postfixtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestTablesReadAgainAreSeenAtOnceAndNobodyIsPutOff(t *testing.T) {
	t.Parallel()
	in := Prepare(t, Config{})
	table := in.Path("domains")
	write := func(domains ...string) {
		t.Helper()
		if err := os.WriteFile(table, []byte(strings.Join(domains, " ok\n")+" ok\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("postmap", "-c", in.ConfigDir(), "cdb:"+table).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	write("first.example")
	if err := in.Set("relay_domains", "cdb:"+table); err != nil {
		t.Fatal(err)
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	dial := func() *Client {
		t.Helper()
		c, err := Dial(in.Addr(), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		for _, command := range []string{"EHLO client.example", "MAIL FROM:<s@client.example>"} {
			if reply, err := c.Say(command); err != nil || !strings.HasPrefix(reply, "250") {
				t.Fatalf("%s: %q, %v", command, reply, err)
			}
		}
		return c
	}
	c := dial()
	if reply, err := c.Say("RCPT TO:<a@second.example>"); err != nil || !strings.HasPrefix(reply, "454") {
		t.Fatalf("%q, %v", reply, err)
	}

	asker, stop, ended := dial(), make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			reply, err := asker.Say(fmt.Sprintf("RCPT TO:<u%d@first.example>", i))
			if err == nil && reply[0] != '2' {
				err = fmt.Errorf("recipient %d is answered %q", i, reply)
			}
			if err == nil && i%500 == 499 {
				if _, err = asker.Say("RSET"); err == nil {
					_, err = asker.Say("MAIL FROM:<s@client.example>")
				}
			}
			select {
			case <-stop:
				ended <- err
				return
			default:
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 3 {
		write("first.example", "second.example")
		if err := in.Reread(); err != nil {
			t.Fatal(err)
		}
		if reply, err := c.Say("RCPT TO:<b@second.example>"); err != nil || !strings.HasPrefix(reply, "250") {
			t.Errorf("a domain that was just added: %q, %v", reply, err)
		}
		write("first.example")
		if err := in.Reread(); err != nil {
			t.Fatal(err)
		}
		if reply, err := c.Say("RCPT TO:<c@second.example>"); err != nil || !strings.HasPrefix(reply, "454") {
			t.Errorf("a domain that was just removed: %q, %v", reply, err)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
