package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"mailbag/meter"
)

// at lets the workplace's commands run at a time.
func (w *workplace) at(text string) {
	w.t.Helper()
	at, err := time.Parse(time.DateTime, text)
	if err != nil {
		w.t.Fatal(err)
	}
	w.now = func() time.Time { return at }
}

// accept counts messages for an account on a day.
func (w *workplace) accept(account, day string, n int, size int64) {
	w.t.Helper()
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := meter.Open(w.t.Context(), w.path("mailbag.db"), meter.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	all, err := l.Load(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	r := meter.NewRecorder(l, nil)
	defer r.Close()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			err := r.Record(meter.Message{Instance: fmt.Sprint(account, day, i), Size: size, At: at, Accounts: []*meter.Account{all.Account(account)}}, nil)
			if err != nil {
				w.t.Error(err)
			}
		})
	}
	group.Wait()
}

// february is a workplace whose account acme passed its limit in February 2026.
func february(t *testing.T) *workplace {
	w := newWorkplace(t, storyMail{})
	w.at("2026-02-01 08:00:00")
	w.must("account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--domain", "bücher.example", "--messages", "200")
	for day := 1; day <= 28; day++ {
		w.accept("acme", fmt.Sprintf("2026-02-%02d", day), 4+day*7%29, 40_000+int64(day)*1000)
	}
	w.at("2026-03-02 08:00:00")
	w.must("usage", "adjust", "acme", "--month", "2026-02", "--messages", "-9", "--reason", `<b>a loop</b> & "more"`)
	return &w
}

func TestStatementOfAClosedMonthStaysTheSame(t *testing.T) {
	t.Parallel()
	w := february(t)
	provisional, final := w.path("provisional.html"), w.path("statement.html")
	w.must("statement", "acme", "--month", "2026-02", "--html", provisional)
	if text := read(t, provisional); !strings.Contains(text, "Provisional") {
		t.Error("the statement of an open month does not say that it is provisional")
	}
	w.must("invoice", "--month", "2026-02", "--close")
	w.must("statement", "acme", "--month", "2026-02", "--html", final)
	closed := read(t, final)
	w.must("account", "set", "acme", "--messages", "1", "--base-price", "99.00")
	w.must("domain", "remove", "acme", "acme.example")
	w.at("2026-06-01 00:00:00")
	if again := w.must("statement", "acme", "--month", "2026-02", "--html", "-"); again != closed {
		t.Error("the statement of a closed month changed")
	}
	if status, _, errs := w.run("statement", "acme", "--month", "2026-02", "--html", w.path("none/x.html")); status != failed || !strings.Contains(errs, "cannot be written") {
		t.Errorf("writing where nothing can be ended with %d: %s", status, errs)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What a PDF has once for each page, and how large those are, in 72nds of an inch.
var (
	pdfPage = regexp.MustCompile(`/Type\s*/Page\b`)
	pdfA4   = regexp.MustCompile(`/MediaBox\s*\[0 0 59[45]\S* 84[12]\S*]`)
)

// elsewhere is what would make a browser ask for something or run something.
var elsewhere = regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed)|\b(src|href|on[a-z]+)=|url\(|@import|https?://`)

func TestStatementIsSeenInABrowser(t *testing.T) {
	t.Parallel()
	w := february(t)
	file := w.path("statement.html")
	w.must("statement", "acme", "--month", "2026-02", "--html", file)
	text := read(t, file)
	if found := elsewhere.FindString(text); found != "" {
		t.Errorf("the page has %q in it", found)
	}
	for _, want := range []string{"acme, February 2026", "bücher.example", "&lt;b&gt;a loop&lt;/b&gt;", "30.00 USD", "2 further tiers of 10.00 each, by messages", "limit, 200"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	shot := screenshot(t, file)
	seen := map[string]int{}
	for name, c := range map[string]color.RGBA{
		"the line of the limit": {0xb9, 0x34, 0x26, 0xff}, "what was used": {0x2f, 0x6f, 0xb0, 0xff}, "the bars of days": {0x5a, 0x8f, 0xc2, 0xff},
	} {
		if seen[name] = pixels(shot, c); seen[name] < 200 {
			t.Errorf("the browser shows %d pixels of %s", seen[name], name)
		}
	}
	t.Log(seen)
	pdf := printed(t, file)
	if sheets := pdfPage.FindAll(pdf, -1); len(sheets) != 1 || !pdfA4.Match(pdf) {
		t.Errorf("it prints on %d pages, or they are not A4", len(sheets))
	}
}

// browser runs a headless Chromium on a page, and returns what it prints. It is told to ask nobody for anything.
func browser(t *testing.T, file string, flags ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed; make deps installs it")
	}
	flags = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" + t.TempDir()}, flags...)
	cmd := exec.CommandContext(t.Context(), path, append(flags, "file://"+file)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.Bytes())
	}
	return out
}

func screenshot(t *testing.T, file string) image.Image {
	t.Helper()
	shot := filepath.Join(filepath.Dir(file), "page.png")
	browser(t, file, "--hide-scrollbars", "--window-size=820,1160", "--screenshot="+shot)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

func printed(t *testing.T, file string) []byte {
	t.Helper()
	pdf := filepath.Join(filepath.Dir(file), "page.pdf")
	browser(t, file, "--no-pdf-header-footer", "--print-to-pdf="+pdf)
	return []byte(read(t, pdf))
}

// pixels is how many of a picture have a colour.
func pixels(picture image.Image, c color.RGBA) (n int) {
	bounds := picture.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			if color.RGBAModel.Convert(picture.At(x, y)) == color.Color(c) {
				n++
			}
		}
	}
	return n
}
