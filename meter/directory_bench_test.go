package meter

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// fillAccounts makes an empty ledger one of so many accounts, of which a quarter have three mailboxes, and ten listed
// recipients for each account, a hundred with a tenth of them.
func fillAccounts(b *testing.B, l *Ledger, accounts int) {
	b.Helper()
	mustInsert(b, l, "INSERT INTO plan (name, messages) VALUES ('small', 1000)")
	for _, fill := range []struct {
		rows int
		sql  string
	}{
		{accounts, `INSERT INTO account (name, customer, plan, mode, host, recipients, contact, created)
			SELECT printf('customer-%07d', i), 'K-' || i, iif(i % 3 = 0, 'small', NULL), CASE i % 4 WHEN 0 THEN 'backup' WHEN 1 THEN 'etrn' WHEN 2 THEN 'atrn' ELSE 'pop3' END,
				iif(i % 4 < 2, printf('mail.customer-%07d.example', i), ''), iif(i % 10 = 0, 'list', 'any'), printf('office-%d@elsewhere.example', i), 1700000000000 FROM n`},
		{accounts, "INSERT INTO domain (name, account) SELECT name || '.example', id FROM account WHERE ?1 > 0"},
		{accounts, "INSERT INTO domain (name, account) SELECT 'shop.' || name || '.example', id FROM account WHERE id % 5 = 0 AND ?1 > 0"},
		{accounts, "INSERT INTO network (account, prefix) SELECT id, printf('10.%d.%d.%d/32', id / 65536 % 256, id / 256 % 256, id % 256) FROM account WHERE mode IN ('etrn', 'atrn') AND ?1 > 0"},
		{accounts, `INSERT INTO mailbox (address, account, domain, created) SELECT value || '@' || a.name || '.example', a.id, a.name || '.example', created
			FROM account a, json_each('["info","office","sales"]') WHERE mode = 'pop3' AND ?1 > 0`},
		{accounts, "INSERT INTO credential SELECT address, account, zeroblob(16), 10000, zeroblob(32), zeroblob(32), NULL, 0 FROM mailbox WHERE ?1 > 0"},
		{accounts, "INSERT INTO credential SELECT name, id, zeroblob(16), 10000, zeroblob(32), zeroblob(32), NULL, 0 FROM account WHERE mode = 'atrn' AND ?1 > 0"},
		{accounts, "INSERT INTO recipient_list (id, account, domain, at) SELECT id, id, name || '.example', 0 FROM account WHERE recipients = 'list' AND ?1 > 0"},
		{100, `INSERT INTO recipient (list, address) SELECT a.id, printf('user%d@%s.example', n.i, a.name)
			FROM account a, n WHERE a.recipients = 'list'`},
	} {
		mustInsert(b, l, numbers+fill.sql, fill.rows)
	}
	mustInsert(b, l, "INSERT INTO change (at, who, account, action) SELECT 1700000000000, 'root', id, 'account add' FROM account")
}

// BenchmarkDirectory is what a daemon does of a ledger with so many accounts (ACCOUNTS; else 100,000) and ten times as many
// listed recipients: to read it at its start, to follow changes, and to answer from it.
func BenchmarkDirectory(b *testing.B) {
	accounts, err := strconv.Atoi(os.Getenv("ACCOUNTS"))
	if err != nil {
		accounts = 100_000
	}
	l := newTestLedger(b, Options{})
	fillAccounts(b, l, accounts)
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
				if d, err = l.loadAfter(b.Context(), current, d); err != nil {
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
		_, _, err := l.EditAccount(b.Context(), "customer-0000001", "account set", func(a *Account) error { a.Note = fmt.Sprint(time.Now().UnixNano()); return nil })
		return err
	})
	follow("plan-set", func(int) error {
		_, _, err := l.EditPlan(b.Context(), "small", func(t *Terms) error { t.Messages++; return nil })
		return err
	})
	b.Run("recipient", func(b *testing.B) {
		a := d.Account("customer-0000010")
		for b.Loop() {
			if !d.Accepts(a, Address{"user77", "customer-0000010.example"}) || d.Domain("customer-0000010.example") != a {
				b.Fatal("the recipient is refused")
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
