package meter

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkCommit is a commit of one message, and of forty that share it.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 40} {
		b.Run(fmt.Sprintf("messages=%d", size), func(b *testing.B) {
			l, d := twoAccounts(b, Options{})
			batch := make([]pending, size)
			for i := 0; b.Loop(); i++ {
				for n := range batch {
					batch[n].message = Message{
						Instance: fmt.Sprintf("1a2b.%x.%x.0", i, n), QueueID: fmt.Sprintf("4bXyZ%xzz%x", i, n), Size: 4096,
						Client: "192.0.2.7", At: noon, Accounts: []*Account{d.Account("globex")},
					}
				}
				if err := l.batch(b.Context(), l.evidence(batch)...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/message")
		})
	}
}

// BenchmarkReconcile is a pass over a queue of 100,000 held messages that are noted already. What it
// keeps of them must not grow with their number.
func BenchmarkReconcile(b *testing.B) {
	l, d := twoAccounts(b, Options{})
	var most uint64
	queue := func(yield func(QueuedMessage, error) bool) {
		var memory runtime.MemStats
		for i := range 100_000 {
			if i%10_000 == 0 {
				runtime.GC()
				runtime.ReadMemStats(&memory)
				most = max(most, memory.HeapAlloc)
			}
			if !yield(QueuedMessage{fmt.Sprintf("4bXyZ%08xzz", i), 4096, noon, []string{"a@globex.example"}}, nil) {
				return
			}
		}
	}
	if _, err := l.Reconcile(b.Context(), d, queue); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := l.Reconcile(b.Context(), d, queue); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(most)/(1<<20), "MB-heap")
}
