package policy

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailbag/meter"
)

// postfixRequest is what Postfix 3.7 sends at RCPT.
func postfixRequest(state, recipient, instance string, more ...string) string {
	text := "request=smtpd_access_policy\nprotocol_state=" + state + "\nprotocol_name=ESMTP\nclient_address=203.0.113.9\n" +
		"client_name=mail.client.example\nclient_port=41222\nreverse_client_name=mail.client.example\nserver_address=192.0.2.25\n" +
		"server_port=25\nhelo_name=mail.client.example\nsender=sender@client.example\nrecipient=" + recipient + "\n" +
		"queue_id=4XyZ1234567890ab\ninstance=" + instance + "\netrn_domain=\nstress=\nsasl_method=\nsasl_username=\nsasl_sender=\n" +
		"ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n" +
		"encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\ncompatibility_level=3.6\nmail_version=3.7.11\n"
	for _, m := range more {
		text += m + "\n"
	}
	return text + "\n"
}

// serveNull answers DUNNO to everything: what any policy server costs.
func serveNull(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) > 1 {
					continue
				}
				if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
					return
				}
			}
		}()
	}
}

// throughput asks from several connections until n requests are answered, and returns requests/s.
func throughput(b *testing.B, path string, connections, n int, text func(worker, i int) string) float64 {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	failed := make(chan error, connections)
	begun := time.Now()
	for worker := range connections {
		go func() {
			failed <- func() error {
				c, err := net.Dial("unix", path)
				if err != nil {
					return err
				}
				defer c.Close()
				r := bufio.NewReader(c)
				for i := 0; left.Add(-1) >= 0; i++ {
					if _, err := c.Write([]byte(text(worker, i))); err != nil {
						return err
					}
					line, err := r.ReadSlice('\n')
					if err == nil && string(line) != "action=DUNNO\n" {
						err = fmt.Errorf("answered %q", line)
					}
					if err == nil {
						_, err = r.ReadSlice('\n')
					}
					if err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range connections {
		if err := <-failed; err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(begun).Seconds()
}

// BenchmarkRCPT reports how fast we are beside a server that only reads and answers, the two taking
// turns. Every message has four recipients.
func BenchmarkRCPT(b *testing.B) {
	for _, connections := range []int{1, 20} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			d := benchDesk(b)
			ours := d.listen(b, "policy", d.ServeRequests)
			null := filepath.Join(d.dir, "null")
			l, err := net.Listen("unix", null)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go serveNull(l)
			text := func(worker, i int) string {
				return postfixRequest("RCPT", "user@domain77.example", fmt.Sprintf("%x.%x", worker, i/4))
			}
			var mine, theirs float64
			rounds := 0
			for b.Loop() {
				theirs += throughput(b, null, connections, 20_000, text)
				mine += throughput(b, ours, connections, 20_000, text)
				rounds++
			}
			b.ReportMetric(mine/float64(rounds), "requests/s")
			b.ReportMetric(mine/theirs, "of-null")
		})
	}
}

// BenchmarkExim reports how many requests a second are answered on connections of their own, as Exim makes them, beside a
// server that only reads and answers: at RCPT, and at the end of a message, which is durable then. TMPDIR is on the disk
// that is meant.
func BenchmarkExim(b *testing.B) {
	for _, clients := range []int{1, 4, 20} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			d := benchDesk(b)
			ours := d.listen(b, "policy", d.ServeRequests)
			null := filepath.Join(d.dir, "null")
			l, err := net.Listen("unix", null)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go serveNull(l)
			const rcpts, messages = 5000, 500
			rcpt := func() string {
				return eximText("protocol_state=RCPT", "client_address=203.0.113.9", "recipient=user@domain77.example")
			}
			var number atomic.Int64
			message := func() string {
				return end(fmt.Sprintf("1vOABC-%06d-2f", number.Add(1)), "recipient_domains=domain77.example")
			}
			var least, asked, counted float64
			rounds := 0
			for b.Loop() {
				least += perSecond(b, null, clients, rcpts, rcpt)
				asked += perSecond(b, ours, clients, rcpts, rcpt)
				counted += perSecond(b, ours, clients, messages, message)
				rounds++
			}
			b.ReportMetric(least/float64(rounds), "null/s")
			b.ReportMetric(asked/float64(rounds), "RCPT/s")
			b.ReportMetric(counted/float64(rounds), "messages/s")
		})
	}
}

// perSecond asks n times on as many connections, of which each client has one open at once.
func perSecond(b *testing.B, path string, clients, n int, text func() string) float64 {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	begun := time.Now()
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				if got := asExim(b, path, text()); got != "DUNNO" {
					b.Errorf("answered %q", got)
				}
			}
		})
	}
	group.Wait()
	return float64(n) / time.Since(begun).Seconds()
}

// BenchmarkMessage reports durable messages a second of 100 milter sessions, and how many share a commit.
func BenchmarkMessage(b *testing.B) {
	const sessions, each = 100, 100
	d := benchDesk(b)
	var commits, messages atomic.Int64
	recorder := meter.NewRecorder(d.ledger, func(batch int, _ time.Duration, _ error) {
		commits.Add(1)
		messages.Add(int64(batch))
	})
	defer recorder.Close()
	d.faults.recorder = recorder
	path := d.listen(b, "milter", d.ServeMilter)
	var all []*mta
	for range sessions {
		all = append(all, dialMilter(b, path))
	}
	rounds := 0
	begun := time.Now()
	for b.Loop() {
		var group sync.WaitGroup
		for i, m := range all {
			group.Go(func() {
				for n := range each {
					m.envelope("user@domain77.example")
					m.content(fmt.Sprintf("Q%dR%dN%d", i, rounds, n))
				}
			})
		}
		group.Wait()
		rounds++
	}
	b.ReportMetric(float64(rounds*sessions*each)/time.Since(begun).Seconds(), "messages/s")
	b.ReportMetric(float64(messages.Load())/float64(commits.Load()), "messages/commit")
}

// BenchmarkIdleConnections reports what an open connection costs in memory, after its first request, the
// peer's end included.
func BenchmarkIdleConnections(b *testing.B) {
	const connections = 1000
	d := benchDesk(b)
	path := d.listen(b, "policy", d.ServeRequests)
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for b.Loop() {
		before := memory()
		var peers []net.Conn
		for range connections {
			c, err := net.Dial("unix", path)
			if err != nil {
				b.Fatal(err)
			}
			peers = append(peers, c)
		}
		text := []byte(postfixRequest("RCPT", "user@domain77.example", "1.2.3.4"))
		answer := make([]byte, len("action=DUNNO\n\n"))
		for _, c := range peers {
			c.Write(text)
			if _, err := io.ReadFull(c, answer); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(memory()-before)/connections, "octets/connection")
		for _, c := range peers {
			c.Close()
		}
	}
}

// benchDesk has a thousand accounts and no log.
func benchDesk(b *testing.B) *desk {
	var accounts []meter.Account
	for i := range 1000 {
		accounts = append(accounts, account(fmt.Sprintf("account%d", i), meter.ATRN, fmt.Sprintf("domain%d.example", i)))
	}
	return openDesk(b, accounts, func(c *Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.Now = func() time.Time { return started }
	})
}
