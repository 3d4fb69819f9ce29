package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
)

// TestKilledMailboxesLoseAndDoubleNothing kills mailbag-popd again and again while the MTA delivers and clients
// fetch and delete. Every message that was accepted is fetched whole; none is deleted without a QUIT.
func TestKilledMailboxesLoseAndDoubleNothing(t *testing.T) {
	s := beginPOP(t)
	passwords := map[string]string{}
	for _, account := range []string{"acme", "globex"} {
		passwords[account] = s.pop3(account, account+".example")
	}
	s.must(s.Popd.Stop())
	s.must(s.Popd.HoldSockets())
	s.must(s.Popd.Start())

	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var load sync.WaitGroup
	var taken atomic.Int64 // messages that were accepted
	filler := strings.Repeat("line of a message that has to come whole\r\n", 200)
	load.Go(func() {
		for !stopped() {
			n := taken.Load()
			data := fmt.Sprintf("Subject: number %d\r\n\r\n%send of %d\r\n", n, filler, n)
			o, err := postfixtest.Send(s.mta.Addr(), "", postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@acme.example", "b@globex.example"}, Data: []byte(data)})
			if err == nil && o.Accepted() {
				taken.Add(1)
			}
		}
	})
	var mu sync.Mutex
	deleted := map[string]bool{}       // unique-ids, by sessions whose QUIT was answered
	confirmed := map[string][]string{} // by account: fetched in sessions whose QUIT was answered
	seen := map[string][]string{}      // fetched in others: deleted maybe
	for account, password := range passwords {
		load.Go(func() {
			for !stopped() {
				all, ids, err := fetchWithIDs(s.POP3, account, password, true)
				mu.Lock()
				for _, id := range ids {
					if deleted[id] {
						t.Errorf("%s: %s was deleted with a QUIT that was answered, and is there again", account, id)
					}
					deleted[id] = err == nil
				}
				if err == nil {
					confirmed[account] = append(confirmed[account], all...)
				} else {
					seen[account] = append(seen[account], all...)
				}
				mu.Unlock()
			}
		})
	}
	const enough = 20 // messages
	kills := 0
	// On a busy machine few messages get in between two blows.
	for until := time.Now().Add(3 * time.Minute); kills < 12 || taken.Load() < enough && time.Now().Before(until); kills++ {
		// The pause is the point: the blow must fall anywhere.
		<-time.After(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		s.Popd.Kill()
		s.must(s.Popd.Launch())
	}
	close(stop)
	load.Wait()
	accepted := int(taken.Load())
	if accepted < enough {
		t.Fatalf("only %d messages were accepted; the test shows nothing", accepted)
	}
	// What a killed delivery left in the queue comes too.
	s.must(s.mta.WaitQueue("the queue is empty", func(q []postfixtest.Entry) bool { return len(q) == 0 }))
	for account, password := range passwords {
		all, err := fetchAll(s.POP3, account, password, true)
		s.must(err)
		got := append(all, confirmed[account]...)
		count := map[int]int{}
		for _, text := range slices.Concat(got, seen[account]) {
			_, body, _ := strings.Cut(text, "\n\n")
			var n int
			if _, err := fmt.Sscanf(body[strings.LastIndex(body, "end of "):], "end of %d", &n); err != nil || body != fmt.Sprintf("%send of %d\n", strings.ReplaceAll(filler, "\r\n", "\n"), n) {
				t.Fatalf("a message did not come whole: %.200q", text)
			}
			count[n]++
		}
		var missing []int
		for n := range accepted {
			if count[n] == 0 {
				missing = append(missing, n)
			}
		}
		if len(missing) > 0 {
			t.Errorf("%s: of %d messages %v were lost", account, accepted, missing)
		}
		if left := s.read(filepath.Join(s.maildir(account, ""), "new")); len(left) != 0 {
			t.Errorf("%s: %d messages are left", account, len(left))
		}
		// The MTA delivers again what was not answered, so a message may come twice; under another unique-id.
		t.Logf("%s: %d accepted, %d fetched and confirmed, %d in broken sessions, over %d kills", account, accepted, len(got), len(seen[account]), kills)
		// What deliveries had begun lies in tmp until its time.
		tmp := filepath.Join(s.maildir(account, ""), "tmp")
		past := time.Now().Add(-37 * time.Hour)
		s.must(os.WriteFile(filepath.Join(tmp, "begun"), nil, 0o600))
		for _, name := range names(s, tmp) {
			s.must(os.Chtimes(filepath.Join(tmp, name), past, past))
		}
	}
	s.must(s.Popd.Stop())
	s.must(s.Popd.Start())
	for account := range passwords {
		s.waitFor("what was given up to be swept", func() bool { return len(names(s, filepath.Join(s.maildir(account, ""), "tmp"))) == 0 })
	}
}

// names are those of the files in a directory.
func names(s *story, dir string) []string {
	s.t.Helper()
	entries, err := os.ReadDir(dir)
	s.must(err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestFullDiskDefersMailAndNothingIsLost fills a small disk under the Maildirs, and makes room again.
func TestFullDiskDefersMailAndNothingIsLost(t *testing.T) {
	s := beginPOP(t)
	password := s.pop3("acme", "acme.example")
	s.must(os.MkdirAll(s.Maildirs, 0o755))
	s.beside("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=1m,mode=700,uid=%d", s.mta.User()), "tmpfs", s.Maildirs)
	t.Cleanup(func() { s.beside("umount", "--lazy", s.Maildirs) })
	data, _ := letter("fits", 2000) // 90 kB
	for range 15 {
		s.accept(data, "a@acme.example", "b@acme.example")
	}
	s.waitFor("the MTA to be told of the full disk", func() bool { return strings.Contains(s.mta.Log(), "452 4.3.1") })
	before, err := fetchAll(s.POP3, "acme", password, false)
	s.must(err)
	if len(before) == 0 || len(before) >= 30 || s.queued() == 0 {
		t.Fatalf("%d messages are stored and %d wait", len(before), s.queued())
	}
	// As mail is fetched, the rest comes, without a restart.
	got := 0
	s.waitFor("all mail to come", func() bool {
		all, err := fetchAll(s.POP3, "acme", password, true)
		s.must(err)
		for _, text := range all {
			if _, body, _ := strings.Cut(text, "\n\n"); !strings.HasSuffix(strings.ReplaceAll(data, "\r\n", "\n"), "\n\n"+body) {
				t.Errorf("a message did not come whole: %d octets", len(text))
			}
		}
		got += len(all)
		return got == 30 && s.queued() == 0
	})
	if left := names(s, fmt.Sprintf("/proc/%d/root%s/tmp", s.Popd.PID(), s.maildir("acme", ""))); len(left) != 0 {
		t.Errorf("tmp has %q", left)
	}
}

func TestRecipientsAndQuotaAtTheFrontDoor(t *testing.T) {
	s := beginPOP(t)
	s.mailbag("account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--catch-all", "no", "--quota", "200kB")
	out := s.mailbag("mailbox", "add", "dent", "arthur@dent.example", "--generate-password")
	password := strings.TrimSpace(out[strings.Index(out, "password: ")+len("password: "):])
	s.must(s.AwaitDomain("dent.example", "dent"))
	data, _ := letter("large", 2000) // 90 kB
	outcome := s.send("x@elsewhere.example", data, "arthur@dent.example", "ford@dent.example", "Arthur+tag@dent.example")
	if r := outcome.Recipients; !strings.HasPrefix(r[0], "250") || !strings.HasPrefix(r[1], "550 5.1.1") || !strings.HasPrefix(r[2], "250") {
		t.Errorf("the recipients are answered %q", r)
	}
	s.stored(s.maildir("dent", "dent.example/arthur"), 2)
	s.accept(data, "arthur@dent.example")
	s.waitFor("the quota to be reached", func() bool { return strings.Contains(s.mta.Log(), "452 4.2.2") })
	if out := s.mailbag("account", "show", "dent"); !strings.Contains(out, "2 messages, 18") {
		t.Errorf("account show says\n%s", out)
	}
	if _, err := fetchAll(s.POP3, "arthur%dent.example", password, true); err != nil {
		t.Fatal(err)
	}
	s.stored(s.maildir("dent", "dent.example/arthur"), 1)
	s.waitFor("an empty queue", func() bool { return s.queued() == 0 })
	if _, _, err := s.Mailbag("account", "delete", "dent"); err == nil || !strings.Contains(err.Error(), "1 message") {
		t.Errorf("account delete with stored mail: %v", err)
	}
	s.mailbag("account", "delete", "dent", "--purge-mail")
}

// TestBccReachesItsUser has fetchmail and getmail deliver a catch-all to the users that the envelope names.
func TestBccReachesItsUser(t *testing.T) {
	s := beginPOP(t)
	users := []string{"arthur", "ford", "trillian"}
	for _, client := range []string{"fetchmail", "getmail"} {
		domain := client + ".example"
		b := box{s, client, s.pop3(client, domain), s.mta.Path(client)}
		for _, user := range users {
			s.must(os.MkdirAll(filepath.Join(b.dir, user), 0o700))
		}
		s.accept("From: x@elsewhere.example\r\nTo: arthur@"+domain+"\r\nCc: zaphod@elsewhere.example\r\nX-Envelope-To: zaphod@"+domain+"\r\n\r\nbody\r\n",
			"arthur@"+domain, "ford@"+domain)
		s.accept("From: x@elsewhere.example\r\nTo: a list:;\r\n\r\nbody\r\n", "trillian+lists@"+domain)
		s.stored(s.maildir(client, ""), 3)
		switch client {
		case "fetchmail":
			b.fetchmail(`envelope "X-Envelope-To" no dns aka `+domain,
				`to arthur ford "trillian+lists"=trillian here mda "cat >$(mktemp -p `+b.dir+`/%T)" sslproto ""`)
		case "getmail":
			sorter := "[destination]\ntype = MultiSorter\ndefault = [nobody]\nlocals = (\n"
			boxes := "[nobody]\n" + b.intoFiles("nobody")
			s.must(os.Mkdir(filepath.Join(b.dir, "nobody"), 0o700))
			for _, user := range users {
				sorter += fmt.Sprintf("  ('%s(\\+.*)?@%s', '[%s]'),\n", user, strings.ReplaceAll(domain, ".", "\\."), user)
				boxes += "[" + user + "]\n" + b.intoFiles(user)
			}
			b.getmail("MultidropPOP3Retriever", sorter+"  )\n"+boxes, "envelope_recipient = x-envelope-to:1")
		}
		for _, user := range users {
			got := s.read(filepath.Join(b.dir, user))
			if len(got) != 1 || !strings.Contains(got[0], "\nX-Envelope-To: "+user) {
				t.Errorf("%s gave %s %q", client, user, got)
			}
		}
	}
}

// TestFloodOfConnectionsHarmsNobody opens 5,000 connections; who is inside goes on, and who comes later from elsewhere gets in.
func TestFloodOfConnectionsHarmsNobody(t *testing.T) {
	s := beginPOP(t)
	password := s.pop3("acme", "acme.example")
	data, _ := letter("before the flood", 10)
	s.accept(data, "a@acme.example")
	s.stored(s.maildir("acme", ""), 1)
	inside, err := popLogin(s.POP3, "acme", password)
	s.must(err)
	defer inside.Close()
	turnedAway := 0
	line := make([]byte, 100)
	for i := range 5000 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 3, byte(1+i/500))}}
		conn, err := d.Dial("tcp", s.POP3)
		s.must(err)
		defer conn.Close()
		n, err := conn.Read(line)
		if err != nil || strings.HasPrefix(string(line[:n]), "-ERR") {
			turnedAway++
			conn.Close()
		}
	}
	if turnedAway != 4000 { // ten addresses with a hundred each
		t.Errorf("%d connections were turned away", turnedAway)
	}
	if all, err := inside.fetch(); err != nil || len(all) != 1 {
		t.Errorf("who was inside fetches %d messages, %v", len(all), err)
	}
	inside.say("QUIT")
	if all, err := fetchAll(s.POP3, "acme", password, true); err != nil || len(all) != 1 {
		t.Errorf("who comes later fetches %d messages, %v", len(all), err)
	}
}

// TestMailForMailboxesIsTriedAgainByFlush lets mail wait while mailbag-popd is away, for longer than the test.
func TestMailForMailboxesIsTriedAgainByFlush(t *testing.T) {
	s := begin(t, mtatest.Config{})
	certificate.New(t, "mx.example").Write(t, s.Certificate(), s.Key())
	s.must(s.Popd.Start())
	s.pop3("dent", "dent.example")
	s.must(s.Popd.Stop())
	s.hold(3, 400, "dent.example")
	s.must(s.Popd.Start())
	s.mailbag("flush", "dent")
	s.stored(s.maildir("dent", ""), 3)
	s.waitFor("the queue to be empty", func() bool { return s.queued() == 0 })
}
