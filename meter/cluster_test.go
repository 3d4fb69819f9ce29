package meter

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	rqlitetest "mailbag/testdata/rqlite"
)

// A cluster is three nodes with a ledger, on whose machines messages are recorded all the time.
type cluster struct {
	*rqlitetest.Nodes
	dir      string
	account  *Account
	ledgers  []*Ledger
	begun    atomic.Int64
	recorded atomic.Int64
	failed   atomic.Pointer[error]
}

// newCluster starts one. Each test of it has all the time there is on few processors: nodes that wait for them lose their lead.
func newCluster(t *testing.T, opt rqlitetest.Options) *cluster {
	t.Helper()
	if os.Getenv(engineVariable) != "rqlite" {
		t.Skip("this is about nodes of rqlite")
	}
	c := &cluster{dir: t.TempDir()}
	var err error
	if c.Nodes, err = rqlitetest.Start(t.Context(), c.dir, 3, opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	for i := range 3 {
		l, err := Open(t.Context(), c.Address(i), Options{Create: true, Host: int64(i + 1), Beside: filepath.Join(c.dir, fmt.Sprint("host-", i+1))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		c.ledgers = append(c.ledgers, l)
	}
	mustInsert(t, c.ledgers[0], "INSERT INTO host (id, name) VALUES (2, 'b'), (3, 'c')")
	mustAdd(t, c.ledgers[0], Account{Name: "acme", Mode: Backup, Domains: []string{"acme.example"}})
	for _, l := range c.ledgers {
		eventually(t, "it knows the account", func() bool {
			d, err := l.Load(t.Context())
			if err == nil {
				c.account = d.Account("acme")
			}
			return err == nil && c.account != nil
		})
	}
	return c
}

// record has messages recorded on machines while something happens, and then looks whether each is there once.
func (c *cluster) record(t *testing.T, machines []int, happens func()) {
	t.Helper()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for _, i := range machines {
		r := NewRecorder(c.ledgers[i], nil)
		defer r.Close()
		for range 4 {
			senders.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := r.Record(Message{Instance: fmt.Sprint(c.begun.Add(1)), Size: 1, At: noon, Accounts: []*Account{c.account}}, nil); err != nil {
						c.failed.Store(&err)
						return
					}
					c.recorded.Add(1)
				}
			})
		}
	}
	happens()
	close(stop)
	senders.Wait()
	if err := c.failed.Load(); err != nil {
		t.Errorf("a sender heard %v", *err)
	}
	got := usageOf(t, c.ledgers[0], c.account, "2026-02")
	var evidence int64
	if err := c.ledgers[0].row(t.Context(), "SELECT count(*) FROM message").Scan(&evidence); err != nil {
		t.Fatal(err)
	}
	if want := c.recorded.Load(); got.Messages != want || evidence != want {
		t.Errorf("of %d messages %d are counted, with evidence of %d", want, got.Messages, evidence)
	}
}

// more waits until more messages were recorded than when it began.
func (c *cluster) more(t *testing.T) {
	t.Helper()
	begun := c.recorded.Load()
	eventually(t, "messages are recorded", func() bool { return c.recorded.Load() >= begun+20 || c.failed.Load() != nil })
}

func (c *cluster) leader(t *testing.T) (leader int) {
	t.Helper()
	eventually(t, "there is a leader", func() bool { leader = c.Leader(); return leader >= 0 })
	return leader
}

// same waits until all nodes have the same rows.
func (c *cluster) same(t *testing.T) {
	t.Helper()
	eventually(t, "all nodes have the same", func() bool {
		var all []string
		for _, node := range c.All {
			e := newRqlite(Scheme+node.HTTP, Options{})
			var text strings.Builder
			for _, from := range []string{"message ORDER BY host, instance, account", "usage ORDER BY account, day", "applied ORDER BY token"} {
				columns := "*"
				if strings.HasPrefix(from, "message") {
					columns = "host, instance, account"
				}
				err := e.query(t.Context(), near, query{statement{sql: "/* all */ SELECT json_array(" + columns + ") FROM " + from}, func(r scanner) error {
					var row string
					err := r.Scan(&row)
					fmt.Fprintln(&text, row)
					return err
				}})
				if err != nil {
					return false
				}
			}
			all = append(all, text.String())
		}
		return all[0] == all[1] && all[1] == all[2]
	})
}

func TestNobodyHearsOfALeadersDeath(t *testing.T) {
	c := newCluster(t, rqlitetest.Options{})
	c.record(t, []int{0, 1, 2}, func() {
		for range 3 {
			c.more(t)
			node := c.All[c.leader(t)]
			node.Kill()
			c.more(t)
			if err := node.Start(); err != nil {
				t.Fatal(err)
			}
			c.more(t)
		}
	})
	c.same(t)
}

// TestAStoppedNodeKeepsNobody stops the leader with requests in its hands, and has it go on with them later.
func TestAStoppedNodeKeepsNobody(t *testing.T) {
	c := newCluster(t, rqlitetest.Options{})
	c.record(t, []int{0, 1, 2}, func() {
		for range 2 {
			c.more(t)
			node := c.All[c.leader(t)]
			node.Pause()
			c.more(t)
			node.Resume()
			c.more(t)
		}
	})
	c.same(t)
}

func TestWithoutAQuorumNothingIsWrittenAndWhatIsNearIsRead(t *testing.T) {
	c := newCluster(t, rqlitetest.Options{})
	c.record(t, []int{0}, func() { c.more(t) })
	for _, node := range c.All[1:] {
		node.Kill()
	}
	l := c.ledgers[0]
	if err := l.batch(t.Context(), once); err == nil {
		t.Error("one of three nodes wrote")
	}
	name := ""
	names := query{statement{sql: "SELECT name FROM account"}, func(r scanner) error { return r.Scan(&name) }}
	if err := l.read(t.Context(), near, names); err != nil || name != "acme" {
		t.Errorf("what is near: %q, %v", name, err)
	}
	if err := c.All[1].Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is written again", func() bool { return l.batch(t.Context(), once) == nil })
	c.record(t, []int{0, 1}, func() { c.more(t) })
}

// TestANodeIsReplaced has one come back with nothing.
func TestANodeIsReplaced(t *testing.T) {
	c := newCluster(t, rqlitetest.Options{})
	c.record(t, []int{0, 1, 2}, func() {
		c.more(t)
		for _, i := range []int{c.leader(t), 0} {
			c.All[i].Kill()
			c.more(t)
			if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprint("node-", i+1))); err != nil {
				t.Fatal(err)
			}
			if err := c.All[i].Start(); err != nil {
				t.Fatal(err)
			}
			c.more(t)
		}
	})
	c.same(t)
}

// TestTheDiskOfANodeIsFull fills that of the leader, and empties it.
func TestTheDiskOfANodeIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to mount a small disk")
	}
	c := newCluster(t, rqlitetest.Options{})
	i := c.leader(t)
	dir := filepath.Join(c.dir, fmt.Sprint("node-", i+1))
	kept := dir + ".kept"
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v %s", name, args, err, out)
		}
	}
	c.All[i].Kill()
	run("mv", dir, kept)
	run("mkdir", dir)
	run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", dir)
	t.Cleanup(func() {
		c.All[i].Kill()
		run("umount", dir)
	})
	run("cp", "-a", kept+"/.", dir)
	if err := c.All[i].Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it leads", func() bool {
		for at, node := range c.All {
			if leader := c.leader(t); at != i && leader == at {
				node.Pause()
				eventually(t, "another leads", func() bool { return !slices.Contains([]int{-1, at}, c.Leader()) })
				node.Resume()
			}
		}
		return c.leader(t) == i
	})
	ballast := filepath.Join(dir, "ballast")
	c.record(t, []int{0, 1, 2}, func() {
		c.more(t)
		if err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=4k").Run(); err == nil {
			t.Error("the disk is not full")
		}
		for range 10 {
			c.more(t)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		c.All[i].Kill() // as whoever frees the disk restarts it
		if err := c.All[i].Start(); err != nil {
			t.Fatal(err)
		}
		c.more(t)
	})
	c.same(t)
}
