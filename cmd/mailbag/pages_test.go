package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// use writes into the ledger what was used on a day, which may be more than a test can send.
func (w *workplace) use(account, day string, messages, bytes int64) {
	w.t.Helper()
	db, err := sql.Open("sqlite3", w.path("mailbag.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("INSERT INTO usage (account, day, messages, bytes) SELECT id, ?, ?, ? FROM account WHERE name = ?", day, messages, bytes, account); err != nil {
		w.t.Fatal(err)
	}
}

// month uses the same on each day of a month.
func (w *workplace) month(account, month string, days int, messages, bytes int64) {
	w.t.Helper()
	for day := 1; day <= days; day++ {
		w.use(account, fmt.Sprintf("%s-%02d", month, day), messages, bytes)
	}
}

// manyDomains are names of customers with many of them, the last as long as one can be.
func manyDomains(n int) (flags []string) {
	for i := range n - 1 {
		flags = append(flags, "--domain", fmt.Sprintf("branch-office-%d.customer.example", i))
	}
	label := strings.Repeat("long", 15)
	return append(flags, "--domain", strings.Join([]string{label, label, label, "example"}, "."))
}

// adjust corrects May 2026.
func (w *workplace) adjust(account, reason string, by ...string) {
	w.t.Helper()
	w.must(append([]string{"usage", "adjust", account, "--month", "2026-05", "--reason", reason}, by...)...)
}

// hardStatements are the statements of May 2026 that are hardest to lay out, by what is hard in them.
func hardStatements(t *testing.T) map[string]string {
	w := newWorkplace(t, storyMail{})
	w.at("2026-05-01 00:00:00")
	add := func(name string, flags ...string) {
		w.must(append([]string{"account", "add", name, "--mode", "backup", "--domain", name + ".example"}, flags...)...)
	}
	add("nothing-came", "--max-tiers", "2")
	add("all-on-one-day", "--messages", "5000")
	add("first-day-and-full", "--messages", "90")
	add("fifty-tiers", "--messages", "100")
	add("six-tiers", "--messages", "500", "--tier-price", "0.05")
	add("far-below", "--messages", "9007199254740992")
	add("only-an-adjustment")
	add("all-taken-back")
	add("large-account-with-a-name-of-32x", append(manyDomains(45), "--base-price", "999999999999.99", "--tier-price", "999999999999.99", "--messages", "1000000000")...)
	add("letters", "--domain", "bücher.example", "--domain", "例え.example", "--domain", "דוגמה.example", "--messages", "200")
	add("many-adjustments", "--messages", "1000000")

	w.use("all-on-one-day", "2026-05-17", 20_000, 3e9)
	w.use("first-day-and-full", "2026-05-01", 100, 1e6)
	w.month("fifty-tiers", "2026-05", 31, 170, 50_000)
	w.month("six-tiers", "2026-05", 31, 100, 50_000)
	w.month("far-below", "2026-05", 31, 1000, 1e4)
	w.month("large-account-with-a-name-of-32x", "2026-05", 31, 123_456_789_012, 1e15)
	w.month("all-taken-back", "2026-05", 31, 3000, 1e6)
	w.month("letters", "2026-05", 31, 6, 4321)
	w.month("many-adjustments", "2026-05", 31, 31_000, 43e6)

	w.at("2026-06-02 08:00:00")
	w.adjust("only-an-adjustment", strings.Repeat("unbreakable", 45), "--messages", "+250000", "--bytes", "+123456789")
	w.adjust("all-taken-back", "a mistake of ours", "--messages", "-93000", "--bytes", "-31MB")
	w.adjust("large-account-with-a-name-of-32x", strings.Repeat("words that go on ", 29), "--messages", "+999999999999999", "--bytes", "-999TB")
	w.adjust("letters", "שלום, לולאת דואר בצד שלנו 12", "--messages", "-12")
	w.adjust("letters", strings.Repeat("郵件迴圈", 40), "--messages", "-3", "--bytes", "+1GB")
	w.adjust("letters", "حلقة بريد", "--messages", "+1")
	for i := range 60 {
		w.adjust("many-adjustments", fmt.Sprintf("no. %d of many that do not fit on one sheet of paper", i), "--messages", "-1234", "--bytes", "-3.5MB")
	}
	w.must("invoice", "--month", "2026-05", "--close")
	pages := map[string]string{}
	for _, name := range strings.Fields(`nothing-came all-on-one-day fifty-tiers six-tiers far-below only-an-adjustment all-taken-back
			large-account-with-a-name-of-32x letters many-adjustments`) {
		pages[name] = w.must("statement", name, "--month", "2026-05", "--html", "-")
	}

	w.at("2026-06-01 09:00:00")
	w.use("first-day-and-full", "2026-06-01", 100, 1e6)
	pages["first-day-and-full"] = w.must("statement", "first-day-and-full", "--month", "2026-06", "--html", "-")
	return pages
}

// hardSheets are the sheets that are hardest to lay out.
func hardSheets(t *testing.T) map[string]string {
	w := manySheets(t)
	pages := map[string]string{}
	for _, name := range []string{"acme", "bolt", "corp", "dent"} {
		pages["sheet of "+name] = w.must("account", "sheet", name, "--html")
	}
	return pages
}

// manySheets is a workplace with an account of each mode that has more of everything than a line holds.
func manySheets(t *testing.T) workplace {
	w := newWorkplace(t, storyMail{})
	hostname := "mx." + strings.Repeat("very-long-", 5) + "provider.example"
	settings := read(t, w.path("mailbag.toml"))
	if err := os.WriteFile(w.path("mailbag.toml"), []byte("hostname = \""+hostname+"\"\n"+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	add := func(name string, flags ...string) {
		w.must(slices.Concat([]string{"account", "add", name, "--domain", name + ".example", "--domain", "bücher-" + name + ".example"}, flags)...)
	}
	add("acme", append(manyDomains(43), "--mode", "backup", "--host", "a-mail-server-with-a-name.customer.example")...)
	add("bolt", "--mode", "etrn", "--host", "192.0.2.7", "--network", "192.0.2.0/24", "--network", "2001:db8:1234:5678::/64")
	add("corp", "--mode", "atrn", "--generate-password", "--base-price", "999999999999.99", "--tier-price", "1234567.89", "--contact", strings.Repeat("c", 64)+"@elsewhere.example")
	add("dent", "--mode", "pop3", "--quota", "5GB", "--generate-password")
	for i := range 30 {
		w.must("mailbox", "add", "dent", fmt.Sprintf("arthur-philip-%d@dent.example", i), "--generate-password")
	}
	w.must("mailbox", "add", "dent", `"ford p"@bücher-dent.example`, "--generate-password")
	w.must("mailbox", "add", "dent", strings.Repeat("z", 64)+"@dent.example", "--generate-password")
	return w
}

// TestPagesFitTelephonesAndScreens has a browser lay the pages out, and measures what a reader would see: nothing is wider
// than the page or its box, no two texts touch, no line strikes a text through, and all of it can be told from its
// background (WCAG 2.2, 1.4.3 and 1.4.11).
func TestPagesFitTelephonesAndScreens(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed; make deps installs it")
	}
	pages := hardStatements(t)
	maps.Copy(pages, hardSheets(t))
	file := filepath.Join(t.TempDir(), "all.html")
	if err := os.WriteFile(file, []byte(beside(pages, 320, 375, 1280)+"<script>"+read(t, "testdata/measure.js")+"</script>"), 0o644); err != nil {
		t.Fatal(err)
	}
	for scheme, flag := range map[string]string{"light": "1", "dark": "0"} {
		dom := string(browser(t, file, "--dump-dom", "--blink-settings=preferredColorScheme="+flag))
		_, report, found := strings.Cut(dom, `<pre id="report">`)
		report, _, _ = strings.Cut(report, "</pre>")
		var measured struct {
			Pages  int
			Scheme string
			Faults []string
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(report)), &measured); !found || err != nil {
			t.Fatalf("%s: the browser did not measure: %v\n%.2000s", scheme, err, dom)
		}
		if measured.Pages != 3*len(pages) || measured.Scheme != scheme {
			t.Errorf("%d pages were shown, %s, want %d, %s", measured.Pages, measured.Scheme, 3*len(pages), scheme)
		}
		for _, fault := range measured.Faults {
			t.Errorf("%s: %s", scheme, fault)
		}
	}
}

// beside shows each page in frames as wide as these screens.
func beside(pages map[string]string, widths ...int) string {
	var text strings.Builder
	text.WriteString("<!DOCTYPE html><meta charset=utf-8><meta name=color-scheme content='light dark'>")
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, width := range widths {
			fmt.Fprintf(&text, "<iframe title=\"%s, %d px\" width=%d height=600 frameborder=0 scrolling=no srcdoc=\"%s\"></iframe>\n",
				name, width, width, html.EscapeString(pages[name]))
		}
	}
	return text.String()
}
