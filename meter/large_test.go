package meter

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// largeNow is when the ledger of [fillLarge] is looked at.
var largeNow = time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)

// fillLarge makes an empty ledger that of an ISP: 10,000 accounts, 3,000,000 messages in 62 days, of which the first
// account has a fifth, the turns of a year and the sessions of 90 days.
func fillLarge(tb testing.TB, l *Ledger) {
	tb.Helper()
	const of = "iif(i % 5 = 0, 1, 1 + i * 7919 % 10000)"
	now := largeNow.UnixMilli()
	for _, fill := range []struct {
		rows int
		sql  string
	}{
		{10_000, "INSERT INTO account (name, mode, created) SELECT 'a' || i, iif(i % 4 = 0, 'pop3', 'atrn'), ?2 - 400 * 86400000 FROM n"},
		{10_000, "INSERT INTO domain (name, account) SELECT 'a' || i || '.example', i + 1 FROM n"},
		{10_000, "INSERT INTO recipient_list (id, account, domain, at) SELECT i + 1, i + 1, 'a' || i || '.example', ?2 FROM n"},
		{30_000, "INSERT INTO change (at, who, account, action) SELECT ?2 - 400 * 86400000 + i, 'root', 1 + i % 10000, 'account set' FROM n"},
		{20_000, "INSERT INTO mailbox (address, account, domain, created) SELECT 'm' || i || '@a' || (i / 8 * 4) || '.example', 1 + i / 8 * 4, 'a' || (i / 8 * 4) || '.example', ?2 FROM n"},
		{20_000, "INSERT INTO credential SELECT address, account, x'00', 4096, x'00', x'00', NULL, ?2 FROM mailbox, (SELECT ?2)"},
		{500_000, "INSERT INTO recipient (list, address) SELECT iif(i % 5, 2, 1 + i / 50), 'r' || i || '@a' || iif(i % 5, 1, i / 50) || '.example' FROM n"},
		{3_000_000, `INSERT INTO message (instance, account, at, day, queue_id, size, client)
			SELECT printf('%x.%x', i * 2654435761 % 4294967296, i), ` + of + `, ?2 - i % 62 * 86400000 - i % 997 * 1000,
				date((?2 - i % 62 * 86400000 - i % 997 * 1000) / 1000, 'unixepoch'), printf('4b%xzz', i), 4096, '192.0.2.7' FROM n`},
		{3_000_000, `INSERT INTO usage (account, day, messages, bytes)
			SELECT 1 + i % 10000, date(?2 / 1000 - (63 + i / 10000) * 86400, 'unixepoch'), 10, 40960 FROM n`},
		{300_000, `INSERT INTO turn (token, account, kind, client, peer, tls, began, ended, outcome)
			SELECT printf('%x.%x', i * 2654435761 % 4294967296, i), ` + of + `, 'atrn', '', '', '', ?2 - (300000 - i) * 105000, ?2 - (300000 - i) * 105000 + 1000, 'done' FROM n`},
		{1_000_000, `INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome, sessions)
			SELECT 1 + i * 7919 % 2500 * 4, 'm' || (i % 8), '', '', ?2 - (1000000 - i) * 7776, ?2 - (1000000 - i) * 7776 + 100,
				i % 10 <> 0 AND i < 980000, 0, 0, 'done', iif(i < 980000 AND i % 10 = 0, 100, 0) FROM n`},
		{200_000, `INSERT INTO waiting (queue_id, account, domain, size, since, noted, delivered)
			SELECT printf('4b%xzz', i), 2 + i % 100, 'a' || (1 + i % 100) || '.example', 4096, ?2 - i, ?2, iif(i % 100 = 0, ?2, NULL) FROM n`},
		{60_000, `INSERT INTO notice (account, subject, level, recipient, message, made, sent, over)
			SELECT 1 + i % 10000, i, 80, '[]', '', ?2 - i * 500000, ?2, iif(i % 6 = 0, NULL, ?2) FROM n`},
		{10_000, `INSERT INTO adjustment (account, month, messages, bytes, reason, at, who)
			SELECT 1 + i, '2026-0' || (1 + i % 3), 1, 0, 'why', ?2, 'root' FROM n WHERE i % 100 = 0`},
	} {
		mustInsert(tb, l, numbers+fill.sql, fill.rows, now)
	}
}

// BenchmarkLargeLedger does once each what must not hold up the recording of mail on the ledger of [fillLarge], and
// says how long a commit of another process waited at most meanwhile.
func BenchmarkLargeLedger(b *testing.B) {
	l := newTestLedger(b, Options{Now: func() time.Time { return largeNow }})
	fillLarge(b, l)
	b.ResetTimer()
	other, err := Open(b.Context(), l.path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer other.Close()
	keep := Keep{Messages: 61 * 24 * time.Hour, Turns: 360 * 24 * time.Hour, Sessions: 89 * 24 * time.Hour}
	for _, c := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Directory", func(ctx context.Context) error { _, err := l.Load(ctx); return err }},
		{"Invoices", func(ctx context.Context) error { _, err := l.Invoices(ctx, Month{2026, 2}, standard); return err }},
		{"Turns", func(ctx context.Context) error { _, err := l.Turns(ctx, "a0", 20); return err }},
		{"TurnsOfNobody", func(ctx context.Context) error { _, err := l.Turns(ctx, "nobody", 20); return err }},
		{"PopSessions", func(ctx context.Context) error { _, err := l.PopSessions(ctx, "a0", 20); return err }},
		{"PopSessionsOfNobody", func(ctx context.Context) error { _, err := l.PopSessions(ctx, "nobody", 20); return err }},
		{"Evidence", func(ctx context.Context) error {
			n := 0
			for _, err := range l.Evidence(ctx, 1, Month{2026, 2}) {
				if err != nil {
					return err
				}
				n++
			}
			if n < 200_000 {
				return fmt.Errorf("%d messages", n)
			}
			return nil
		}},
		{"Recipients", func(ctx context.Context) error {
			for _, err := range l.Recipients(ctx, 2) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"InterruptTurns", l.InterruptTurns},
		{"CloseMonth", func(ctx context.Context) error { return l.CloseMonth(ctx, Month{2026, 2}, standard) }},
		{"Prune", func(ctx context.Context) error { _, err := l.Prune(ctx, keep); return err }},
		{"PruneOfNothing", func(ctx context.Context) error { _, err := l.Prune(ctx, keep); return err }},
		{"DeleteAccount", func(ctx context.Context) error { return l.DeleteAccount(ctx, "a2") }},
	} {
		ctx, stop := context.WithCancel(b.Context())
		longest := make(chan time.Duration)
		go func() { longest <- longestCommit(ctx, b, other) }()
		begun := time.Now()
		if err := c.do(b.Context()); err != nil {
			b.Errorf("%s: %v", c.name, err)
		}
		b.ReportMetric(time.Since(begun).Seconds()*1000, c.name+"-ms")
		stop()
		b.ReportMetric((<-longest).Seconds()*1000, c.name+"-commit-ms")
	}
}

// longestCommit commits something small every few milliseconds and returns how long that took at most.
func longestCommit(ctx context.Context, b *testing.B, l *Ledger) (most time.Duration) {
	for {
		begun := time.Now()
		if err := l.probe(b.Context()); err != nil {
			b.Error(err)
		}
		most = max(most, time.Since(begun))
		select {
		case <-ctx.Done():
			return most
		case <-time.After(2 * time.Millisecond):
		}
	}
}
