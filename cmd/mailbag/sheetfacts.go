package main

import (
	"fmt"
	"net"
	"strings"

	"mailbag/meter"
)

// A sheetFact is something that a customer has to know, in so many lines.
type sheetFact struct {
	Name  string   `json:"name"`
	Lines []string `json:"lines"`
	Names bool     `json:"-"` // each line is one of several names
	Code  bool     `json:"-"` // the lines are for programs
}

// Text is the fact on the sheet that is no page.
func (f sheetFact) Text() string {
	name, below := fmt.Sprintf("%-18s", f.Name), strings.Repeat(" ", 18)
	if f.Names {
		return listed(name, below, ", ", "", f.Lines) + "\n"
	}
	var lines strings.Builder
	for _, line := range f.Lines {
		if f.Code {
			lines.WriteString(name + line + "\n")
		} else {
			lines.WriteString(wrapped(name, below, line))
		}
		name = below
	}
	return lines.String()
}

// facts are the lines at the top of the sheet.
func (d *desk) facts(s *customerSheet, all *meter.Directory, a *meter.Account, with setting) {
	add := func(f sheetFact) {
		if len(f.Lines) > 0 {
			s.Facts = append(s.Facts, f)
		}
	}
	fact := func(name string, lines ...string) { add(sheetFact{Name: name, Lines: lines}) }
	t := d.tariff().For(a)
	add(sheetFact{Name: "Domains", Lines: inOwnLetters(a.Domains), Names: true})
	add(sheetFact{Name: "MX records", Lines: mxRecords(a, s.Hostname), Code: true})
	fact("Mail", delivery(a, s.Hostname, len(with.Mailboxes) > 0)...)
	server := func(port string, tls bool, command string) {
		text := s.Hostname + ", port " + port
		switch {
		case tls:
			text += ", with TLS"
		case with.Certificate:
			text += ", with " + command
		}
		fact("Server", text)
	}
	switch a.Mode {
	case meter.ATRN:
		server(with.TurnPort, with.TurnTLS, "STARTTLS")
	case meter.POP3:
		server(with.POPPort, with.POPTLS, "STLS")
	case meter.ETRN:
		fact("Server", s.Hostname+", port 25")
	}
	if with.User != "" {
		fact("User name", with.User)
	}
	if a.Mode == meter.POP3 {
		boxes := sheetFact{Name: "Mailboxes", Names: true}
		for _, key := range all.Mailboxes(a) {
			boxes.Lines = append(boxes.Lines, addressInOwnLetters(meter.KeyAddress(key)))
		}
		add(boxes)
	}
	if with.User != "" || len(with.Mailboxes) > 0 {
		fact("Password", "the one that you were given; it is not on this sheet")
	}
	if a.Mode != meter.POP3 {
		fact("Networks", with.Networks...)
	}
	fact("Monthly limit", fmt.Sprintf("%s messages or %s, whichever comes first", grouped(t.Messages), exactSize(t.Bytes)), aboveLimit(t))
	prices := []string{fmt.Sprintf("%s %s a month up to the limit", money(t.BasePrice), t.Currency)}
	if t.Prorate {
		prices = append(prices, "of the first month, for the days from the first one on")
	}
	fact("Price", prices...)
	fact("Hold time", span(a.HoldTime())+"; what waits for longer goes back to its sender")
	if a.Mode == meter.POP3 && a.Quota > 0 {
		fact("Storage", exactSize(a.Quota)+"; while it is full, mail waits for the hold time")
	}
	if a.Contact != "" {
		contact := a.Contact
		if address, err := meter.ParseAddress(contact); err == nil {
			contact = addressInOwnLetters(address)
		}
		fact("Notices go to", contact)
	}
}

// aboveLimit says what becomes of mail above the limit.
func aboveLimit(t meter.Tariff) string {
	switch {
	case t.OnLimit == meter.Reject:
		return "above it mail is refused, until the next month"
	case t.Bound() == 1:
		return "above it senders are told to try again, until the next month"
	}
	text := fmt.Sprintf("above it each further tier of this size costs %s %s", money(t.TierPrice), t.Currency)
	if t.MaxTiers > 0 {
		text += ", up to " + grouped(t.MaxTiers) + " tiers; then senders are told to try again"
	}
	return text
}

// maxRecords is for how many domains the MX records are all written out. They differ in nothing but the domain.
const maxRecords = 4

// mxRecords are lines of a zone (RFC 1035, section 5). The customer's own server comes first where mail is
// to go there directly, as long as it is there.
func mxRecords(a *meter.Account, hostname string) (lines []string) {
	owners := make([]string, len(a.Domains))
	for i, domain := range a.Domains {
		owners[i] = domain + "."
	}
	if len(owners) > maxRecords {
		owners = []string{"@"}
		lines = []string{"; in the zone of each domain, or with its name and a dot for @"}
	}
	for _, owner := range owners {
		if a.Mode != meter.Backup {
			lines = append(lines, fmt.Sprintf("%s IN MX 10 %s.", owner, hostname))
			continue
		}
		own := "your-mail-server." + owner
		if owner == "@" {
			own = "your-mail-server" // in that zone
		}
		if h, err := meter.ParseHost(a.Host); err == nil && net.ParseIP(h.Name) == nil {
			own = h.Name + "."
		}
		lines = append(lines, fmt.Sprintf("%s IN MX 10 %s", owner, own), fmt.Sprintf("%s IN MX 20 %s.", owner, hostname))
	}
	return lines
}

// delivery says how mail comes to the customer.
func delivery(a *meter.Account, hostname string, mailboxes bool) []string {
	switch a.Mode {
	case meter.ETRN:
		return append([]string{"is held until your mail server says ETRN (RFC 1985) to " + hostname +
			" from one of the networks below, and is then delivered to " + hostInOwnLetters(a.Host)}, demandedTLS(a)...)
	case meter.ATRN:
		lines := []string{"is held until your mail server logs in and says ATRN (RFC 2645), and is delivered over the same connection"}
		if len(a.Networks) > 0 {
			lines = append(lines, "Log-ins are taken from the networks below only")
		}
		return lines
	case meter.POP3:
		if a.CatchAll {
			lines := []string{"is fetched by POP3 (RFC 1939)", "Whom a message is for stands in its header X-Envelope-To"}
			if mailboxes {
				lines = append(lines, "Mail for a mailbox is fetched with that mailbox's own log-in")
			}
			return lines
		}
		return []string{"is fetched by POP3 (RFC 1939), from each mailbox with its own log-in"}
	}
	to := yourServer
	if a.Host != "" {
		to = hostInOwnLetters(a.Host)
	}
	return append([]string{"goes to " + to + " at once; while that is away, we try again and again"}, demandedTLS(a)...)
}

// demandedTLS says what the customer's server must offer to get any mail.
func demandedTLS(a *meter.Account) []string {
	switch a.TLS {
	case meter.TLSRequire:
		return []string{"Your mail server must offer STARTTLS"}
	case meter.TLSVerify:
		name := "its name in the MX record"
		if h, err := meter.ParseHost(a.Host); err == nil {
			name = h.Name
		}
		return []string{"Your mail server must offer STARTTLS, with a valid certificate for " + name}
	}
	return nil
}
