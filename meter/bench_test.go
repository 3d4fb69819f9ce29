package meter

import (
	"context"
	"strconv"
	"testing"
)

// BenchmarkRecord is one message at a time, which is the dearest way: a commit for each.
func BenchmarkRecord(b *testing.B) {
	l, d := twoAccounts(b, Options{})
	r := NewRecorder(l, nil)
	defer r.Close()
	m := Message{QueueID: "4bXyZ12345zzzz", Size: 4096, Client: "192.0.2.7", At: noon, Accounts: []*Account{d.Account("globex")}}
	for i := 0; b.Loop(); i++ {
		m.Instance = "1a2b." + strconv.Itoa(i) + ".9f3e.0"
		if err := r.Record(context.Background(), m); err != nil {
			b.Fatal(err)
		}
	}
}
