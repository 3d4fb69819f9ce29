package meter

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// BenchmarkCommit is a commit of one message, and of forty that share it, each for one domain or for several of the account's.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{1, 40} {
		for _, domains := range [][]string{{"a.example"}, {"a.example", "b.example", "c.example"}} {
			b.Run(fmt.Sprintf("messages=%d/domains=%d", size, len(domains)), func(b *testing.B) {
				l, d := severalDomains(b, Options{})
				batch := make([]*pending, size)
				for i := 0; b.Loop(); i++ {
					for n := range batch {
						batch[n] = &pending{message: Message{
							Instance: fmt.Sprintf("1a2b.%x.%x.0", i, n), QueueID: fmt.Sprintf("4bXyZ%xzz%x", i, n), Size: 4096,
							Client: "192.0.2.7", At: noon, Accounts: []*Account{d.Account("hooli")}, Domains: domains,
						}}
					}
					if err := l.batch(b.Context(), l.evidence(batch)...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "µs/message")
			})
		}
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

// BenchmarkWaiting is what is asked of 200,000 messages that wait for an account with three domains, nothing in the
// third, and a pass over them, which the queue lists in no order.
func BenchmarkWaiting(b *testing.B) {
	l, d := severalDomains(b, Options{})
	account := d.Account("hooli").ID
	const n = 200_000
	queue := func(yield func(QueuedMessage, error) bool) {
		for i := range n {
			m := QueuedMessage{fmt.Sprintf("4bXyZ%08xzz", i*7919%n), 4096, noon.Add(time.Duration(i) * time.Second), []string{"x@" + d.Account("hooli").Domains[i%2]}}
			if !yield(m, nil) {
				return
			}
		}
	}
	if _, err := l.Reconcile(b.Context(), d, queue); err != nil {
		b.Fatal(err)
	}
	measure := func(name string, ask func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	measure("pass", func() error { _, err := l.Reconcile(b.Context(), d, queue); return err })
	for name, domains := range map[string][]string{"all": nil, "one": {"a.example"}, "several": {"b.example", "c.example"}, "none": {"c.example"}} {
		measure("amount/"+name, func() error { _, err := l.Waiting(b.Context(), account, domains...); return err })
		measure("whether/"+name, func() error { _, err := l.HasWaiting(b.Context(), account, domains...); return err })
		measure("page/"+name, func() error {
			_, err := l.WaitingAfter(b.Context(), account, domains, WaitingMessage{}, 50)
			return err
		})
	}
}
