package meter

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// BenchmarkArchive moves a day with a million messages of 10,000 accounts, of which one has a fifth, to its file, and says
// how long a commit of another process waited at most meanwhile, and how much of the heap was in use then.
func BenchmarkArchive(b *testing.B) {
	l := newTestLedger(b, Options{Now: func() time.Time { return largeNow }})
	mustInsert(b, l, numbers+"INSERT INTO account (name, mode, created) SELECT 'a' || i, 'atrn', ?2 FROM n", 10_000, 0)
	const chunk = 20_000
	const messages = 1_000_000
	for first := 0; first < messages; first += chunk {
		mustInsert(b, l, numbers+`INSERT INTO message (instance, account, at, day, queue_id, size, client, domains)
			SELECT printf('%x.%x', (?3 + i) * 2654435761 % 4294967296, ?3 + i), iif(i % 5 = 0, 1, 1 + (?3 + i) * 7919 % 10000), ?2 + (?3 + i) * 86, '2026-03-01',
				printf('4b%xzz', ?3 + i), 4096, '192.0.2.7', '["a.example"]' FROM n`, chunk, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), first)
	}
	other := New(l.path, Options{})
	defer other.Close()
	b.ResetTimer()
	ctx, stop := context.WithCancel(b.Context())
	longest, heap := make(chan time.Duration), make(chan uint64)
	go func() { longest <- longestCommit(ctx, b, other) }()
	go func() { heap <- mostHeap(ctx) }()
	done, err := l.Archive(b.Context(), idsIn())
	if err != nil || done.Messages != messages {
		b.Fatalf("archived %+v, %v", done, err)
	}
	b.ReportMetric(b.Elapsed().Seconds(), "s")
	stop()
	b.ReportMetric((<-longest).Seconds()*1000, "commit-ms")
	b.ReportMetric(float64(<-heap)/1e6, "MB")
	if file, err := os.Stat(filepath.Join(l.evidenceDir(), "2026-03-01.csv.gz")); err == nil {
		b.ReportMetric(float64(file.Size())/messages, "octets/message")
	}
}

// mostHeap is how much of the heap was in use at most.
func mostHeap(ctx context.Context) (most uint64) {
	for {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
		select {
		case <-ctx.Done():
			return most
		case <-time.After(50 * time.Millisecond):
		}
	}
}
