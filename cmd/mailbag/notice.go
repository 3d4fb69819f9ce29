package main

import (
	"bytes"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

//go:embed notices
var builtIn embed.FS

// limitNotice is what limit.txt may name. Numbers are written as a reader has them.
type limitNotice struct {
	Account, Domains, Hostname string // of many domains the first and how many there are besides
	Customer                   string // in the operator's books; may be empty
	Month                      string // "February 2026"
	Over                       bool   // and not present any more
	Until                      string // when the next month begins
	Messages, MessageLimit     string
	Size, SizeLimit            string
	Percent                    int64 // of the limit that is nearer
	Reached                    bool
	Stopped                    bool   // no more mail is accepted
	OnLimit                    string // "bill", "defer" or "reject"
	Tiers, MaxTiers            int64
	Charge                     string // of the month so far
	BasePrice, TierPrice       string
	Currency                   string
}

// waitingNotice is what waiting.txt may name.
type waitingNotice struct {
	Account, Domains, Hostname string
	Customer                   string
	Messages                   string // "3 messages"
	Size                       string
	Since                      string // arrival of the oldest
	Hold                       string // "30 days"
	Returns                    string // when the oldest goes back
	Mode                       string // "backup", "etrn", "atrn" or "pop3"
	Fetched                    bool   // by the customer, in etrn and atrn
	Suspended                  bool
	Host                       string // the customer's server; by MX it is named so
	TurnPort                   string // where ATRN is said
}

// noticeTexts are the texts of notices by their names.
var noticeTexts = []string{"limit", "waiting", "silent", "digest"}

// notices are the texts of notices.
type notices struct{ limit, waiting, silent, digest *template.Template }

// readNotices reads the operator's texts, and the built-in ones where there are none, and tries them out:
// a text with a mistake sends nothing.
func (d *desk) readNotices(hostname string) (*notices, error) {
	var n notices
	for _, text := range []struct {
		name    string
		to      **template.Template
		samples []any
	}{
		{"limit.txt", &n.limit, d.limitSamples(hostname)},
		{"waiting.txt", &n.waiting, d.waitingSamples(hostname)},
		{"silent.txt", &n.silent, d.silentSamples(hostname)},
		{"digest.txt", &n.digest, d.digestSamples(hostname)},
	} {
		path := filepath.Join(d.settings.Notices.Templates, text.name)
		source, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			path = "the built-in " + text.name
			source, err = builtIn.ReadFile("notices/" + text.name)
		}
		if err != nil {
			return nil, fmt.Errorf("the text of a notice cannot be read, so none is sent: %w", err)
		}
		*text.to, err = template.New(text.name).Parse(string(source))
		for _, sample := range text.samples {
			if err == nil {
				_, _, err = fill(*text.to, sample)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s has a mistake, so no notice is sent: %w", path, err)
		}
	}
	return &n, nil
}

// sampleAccount is who the texts are tried out on.
func sampleAccount() meter.Account {
	return meter.Account{Name: "sample", Mode: meter.Backup, Host: "mail.sample.example", Contact: "boss@elsewhere.example",
		Domains: []string{"sample.example", "sample.invalid", "sample.test"}}
}

// limitSamples are all that can be said of a limit.
func (d *desk) limitSamples(hostname string) (all []any) {
	a := sampleAccount()
	for _, a.OnLimit = range limitActions {
		for _, a.MaxTiers = range []int64{0, 1, 3} {
			t := d.tariff().For(&a)
			for _, used := range []int64{t.Messages - t.Messages/5, t.Messages, 2*t.Messages + 1, 3 * t.Messages} {
				i := meter.Invoice{Account: a.Name, Counted: meter.Usage{Messages: used, Bytes: t.Bytes / 2}, Tariff: t}
				for _, month := range []meter.Month{d.thisMonth(), d.thisMonth().Previous()} {
					all = append(all, d.limitNotice(&a, i, month, hostname))
				}
			}
		}
	}
	return all
}

// waitingSamples are all that can be said of waiting mail.
func (d *desk) waitingSamples(hostname string) (all []any) {
	a := sampleAccount()
	for _, a.Mode = range meter.Modes {
		for _, a.Suspended = range []bool{false, true} {
			w := meter.Waiting{Messages: 3, Bytes: 4_100, Oldest: d.now().Add(-a.HoldTime() / 2)}
			all = append(all, d.waitingNotice(&a, w, hostname))
		}
	}
	return all
}

// maxTextLine is the longest line of a message in octets without its end (RFC 5322, section 2.1.1).
const maxTextLine = 998

// fill makes a subject and a body. The text's first line is the subject, the second is empty.
func fill(t *template.Template, values any) (subject, body string, err error) {
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return "", "", err
	}
	head, body, found := strings.Cut(strings.ReplaceAll(text.String(), "\r\n", "\n"), "\n\n")
	subject, named := strings.CutPrefix(head, "Subject: ")
	subject = strings.TrimSpace(subject)
	switch {
	case !found || !named || subject == "" || strings.Contains(subject, "\n"):
		return "", "", errors.New(`it must begin with a line "Subject: ...", and an empty line behind it`)
	case !utf8.ValidString(text.String()):
		return "", "", errors.New("it is not UTF-8")
	case strings.ContainsFunc(subject, unicode.IsControl) || strings.ContainsAny(body, "\r\x00"):
		return "", "", errors.New("it has a control character")
	case len("Subject: "+subject) > maxTextLine:
		return "", "", fmt.Errorf("its subject is longer than %d octets", maxTextLine)
	case strings.TrimSpace(body) == "":
		return "", "", errors.New("nothing is behind its subject")
	}
	for line := range strings.Lines(body) {
		if len(line) > maxTextLine {
			return "", "", fmt.Errorf("a line is longer than %d octets", maxTextLine)
		}
	}
	return subject, strings.TrimRight(body, "\n") + "\n", nil
}

// letter is the whole message. What it says of itself keeps vacation programs and mailing lists from
// answering (RFC 3834, section 5).
func letter(from, to, hostname, subject, body string, at time.Time) string {
	encoding := "7bit"
	if strings.ContainsFunc(body, func(r rune) bool { return r >= utf8.RuneSelf }) {
		encoding = "8bit"
	}
	return "From: " + from + "\n" +
		"To: " + to + "\n" +
		"Subject: " + folded(mime.QEncoding.Encode("utf-8", subject)) + "\n" +
		"Date: " + at.Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\n" +
		"Message-ID: <" + rand.Text() + "@" + hostname + ">\n" +
		"Auto-Submitted: auto-generated\n" +
		"MIME-Version: 1.0\n" +
		"Content-Type: text/plain; charset=utf-8\n" +
		"Content-Transfer-Encoding: " + encoding + "\n\n" + body
}

// folded puts each encoded word on a line of its own (RFC 2047, section 2).
func folded(subject string) string { return strings.ReplaceAll(subject, "?= =?", "?=\n =?") }

// limitNotice tells of an account's month.
func (d *desk) limitNotice(a *meter.Account, i meter.Invoice, month meter.Month, hostname string) limitNotice {
	u := i.Usage()
	used, limit, _ := i.Tariff.Nearer(u)
	return limitNotice{
		Account: a.Name, Customer: a.Customer, Domains: few(inOwnLetters(a.Domains)), Hostname: hostname,
		Month: monthName(month), Over: month.Before(d.thisMonth()), Until: d.moment(month.Next().Start(d.settings.Billing.Location)),
		Messages: grouped(u.Messages), MessageLimit: grouped(i.Tariff.Messages),
		Size: units.RoundSize(u.Bytes), SizeLimit: exactSize(i.Tariff.Bytes),
		Percent: int64(100 * float64(used) / float64(limit)), Reached: i.Tariff.Reached(u, 1), Stopped: stopped(i.Tariff, u),
		OnLimit: string(i.Tariff.OnLimit), Tiers: i.Tiers(), MaxTiers: i.Tariff.MaxTiers, Charge: money(i.Total()),
		BasePrice: money(i.Base()), TierPrice: money(i.Tariff.TierPrice), Currency: i.Tariff.Currency,
	}
}

// waitingNotice tells of what waits for an account.
func (d *desk) waitingNotice(a *meter.Account, w meter.Waiting, hostname string) waitingNotice {
	host := yourServer
	if a.Host != "" {
		host = hostInOwnLetters(a.Host)
	}
	port, _ := d.turnPort()
	return waitingNotice{
		Account: a.Name, Customer: a.Customer, Domains: few(inOwnLetters(a.Domains)), Hostname: hostname,
		Messages: amountOf(int(w.Messages)), Size: units.RoundSize(w.Bytes), Since: d.moment(w.Oldest),
		Hold: span(a.HoldTime()), Returns: d.moment(w.Oldest.Add(a.HoldTime())),
		Mode: string(a.Mode), Fetched: a.Mode.Held(), Suspended: a.Suspended, Host: host, TurnPort: port,
	}
}
