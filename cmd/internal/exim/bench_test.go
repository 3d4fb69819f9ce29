package exim

import (
	"context"
	"io"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// Listing 100,000 held messages: by root, and by who asks the helper.
func BenchmarkListing(b *testing.B) {
	const messages = 100_000
	l := newLab(b, true)
	l.copies(messages)
	h, _ := l.serve(io.Discard)
	for name, list := range map[string]func(context.Context) (n int){
		"root": func(ctx context.Context) (n int) {
			for range l.Queue(ctx) {
				n++
			}
			return n
		},
		"helper": func(ctx context.Context) (n int) {
			for range h.Queue(ctx) {
				n++
			}
			return n
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if n := list(context.Background()); n != messages {
					b.Fatalf("%d messages", n)
				}
			}
		})
	}
}

// Deliveries into a null sink, for a window of 500 messages that are released in the steps of a turn, beside as many queue runners as
// there are deliveries at a time.
func BenchmarkRelease(b *testing.B) {
	const messages = 500
	for _, way := range []string{"release", "queue runners"} {
		b.Run(way, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				l := newLab(b, true)
				ids := l.copies(messages)
				s := l.openTurn(nil)
				h, _ := l.serve(io.Discard)
				b.StartTimer()
				if way == "release" {
					for step := range slices.Chunk(ids, 50) {
						if err := h.do(context.Background(), "release", step); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					var runners sync.WaitGroup
					for range sideBySide {
						runners.Go(func() {
							_ = exec.Command(l.Command[0], append(slices.Clone(l.Command[1:]), "-qffGmailbag")...).Run()
						})
					}
					runners.Wait()
				}
				l.wait("all deliveries", func() bool { return len(s.delivered()) == messages })
				b.StopTimer()
				l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
				b.StartTimer()
			}
			b.ReportMetric(float64(messages*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
