package meter

import (
	"database/sql"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// fillThousands makes an empty ledger one of so many accounts, as package thousands does, which is not to be had here.
func fillThousands(b *testing.B, l *Ledger, accounts int) {
	b.Helper()
	fill, err := os.ReadFile("../testdata/thousands/fill.sql")
	if err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open(driverName, fileOf(b, l).dsn("rw"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range []statement{
		{"CREATE TEMP TABLE given AS SELECT ? AS accounts, ? AS now, ? AS today", []any{accounts, noon.UnixMilli(), noon.Format(time.DateOnly)}},
		{"BEGIN", nil}, {string(fill), nil}, {"COMMIT", nil},
	} {
		if _, err := db.ExecContext(b.Context(), s.sql, s.args...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDirectory is what a daemon does of a ledger with so many accounts (ACCOUNTS; else 100,000) and ten times as many
// listed recipients: to read it at its start, to follow changes, and to answer from it.
func BenchmarkDirectory(b *testing.B) {
	accounts, err := strconv.Atoi(os.Getenv("ACCOUNTS"))
	if err != nil {
		accounts = 100_000
	}
	l := newTestLedger(b, Options{})
	fillThousands(b, l, accounts)
	var d *Directory
	b.Run("start", func(b *testing.B) {
		before := heap()
		for b.Loop() {
			if d, err = l.Load(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MB-heap")
	})
	follow := func(name string, change func(i int) error) {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				if err := change(i); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if d, err = l.loadAfter(b.Context(), d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	follow("account-add", func(int) error {
		name := fmt.Sprintf("new-%d", time.Now().UnixNano())
		return l.AddAccount(b.Context(), withDefaults(Account{Name: name, Mode: ATRN, Domains: []string{name + ".example"}}), nil)
	})
	follow("account-set", func(i int) error {
		_, _, err := l.EditAccount(b.Context(), "customer-000001", "account set", func(a *Account) error { a.Note = fmt.Sprint(time.Now().UnixNano()); return nil })
		return err
	})
	follow("plan-set", func(int) error {
		_, _, err := l.EditPlan(b.Context(), "small", func(t *Terms) error { t.Messages++; return nil })
		return err
	})
	b.Run("recipient", func(b *testing.B) {
		a := d.Account("customer-000010")
		for b.Loop() {
			if accepts, err := l.Accepts(b.Context(), d, a, Address{"user77", "customer-000010.example"}); !accepts || err != nil {
				b.Fatal("the recipient is refused", err)
			}
		}
	})
	runtime.KeepAlive(d)
}

// heap is what is in use, without what is garbage.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
