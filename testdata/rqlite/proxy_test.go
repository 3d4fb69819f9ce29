package rqlitetest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// execute has a node execute a statement, and reports whether it did within a moment.
func execute(n *Node, statement string) bool {
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://"+n.HTTP+"/db/execute?transaction", "application/json", strings.NewReader(`["`+statement+`"]`))
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK && !bytes.Contains(text, []byte("error"))
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

func TestWhatIsCutOffIsLeftOutUntilItIsMended(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	n, err := Start(t.Context(), t.TempDir(), 3, Options{Network: true, Args: Unhurried})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	eventually(t, "made a table", func() bool { return execute(n.All[0], "CREATE TABLE IF NOT EXISTS t (a)") })
	for _, c := range []struct {
		name     string
		from, to func(leader int) []int
	}{
		{"the leader cannot send", only, others},
		{"the leader hears nothing", others, only},
		{"each is alone", everybody, everybody},
	} {
		leader := -1
		eventually(t, "a leader", func() bool { leader = n.Leader(); return leader >= 0 })
		n.Network.Cut(c.from(leader), c.to(leader))
		if c.name == "each is alone" {
			eventually(t, "refused without a quorum", func() bool { return !execute(n.All[leader], "INSERT INTO t VALUES (0)") })
		} else {
			other := n.All[(leader+1)%3]
			eventually(t, "another leader while "+c.name, func() bool { return execute(other, "INSERT INTO t VALUES (1)") })
		}
		n.Network.Mend()
		for _, node := range n.All {
			eventually(t, "mended after "+c.name, func() bool { return execute(node, "INSERT INTO t VALUES (2)") })
		}
	}
}

func only(leader int) []int   { return []int{leader} }
func others(leader int) []int { return []int{(leader + 1) % 3, (leader + 2) % 3} }
func everybody(int) []int     { return []int{0, 1, 2} }
