package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/settings"
	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

func (c *console) sheetCommand() *cobra.Command {
	var asHTML, asJSON bool
	cmd := &cobra.Command{
		Use:   "sheet NAME",
		Short: "Write what a customer has to set up",
		Long: `Write what a customer has to set up: MX records, host and ports, user name, domains, networks, limits and hold
time, and settings for fetchmail, Postfix, Exim, Exchange and MDaemon. The password is not in it.`,
		Example:           "  mailbag account sheet acme\n  mailbag account sheet acme --html > acme.html",
		Args:              arguments("NAME"),
		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().BoolVar(&asHTML, "html", false, "write a page, whole in itself, that prints on A4")
	jsonFlag(cmd, &asJSON)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := together(cmd, "html", "json"); err != nil {
			return err
		}
		return c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			s, err := d.sheet(ctx, args[0])
			switch {
			case err != nil:
				return err
			case asJSON:
				return d.json(s)
			case asHTML:
				return outputError(page("sheet.html").Execute(d.out, s))
			}
			return outputError(plainPage("sheet.txt").Execute(d.out, s))
		})(cmd, args)
	}
	return cmd
}

// plainPage reads one of the texts.
func plainPage(name string) *template.Template {
	return template.Must(template.ParseFS(pages, "pages/"+name))
}

// A customerSheet is what a customer has to know.
type customerSheet struct {
	Title    string         `json:"title"`
	Hostname string         `json:"hostname"`
	Facts    []sheetFact    `json:"facts"`
	Settings []sheetSetting `json:"settings"`
}

type sheetFact struct {
	Name  string   `json:"name"`
	Lines []string `json:"lines"`
}

// A sheetSetting is what goes into one program.
type sheetSetting struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

// setting is what the templates in settings.txt have.
type setting struct {
	Hostname, Mode, User, Server string
	Domains, Mailboxes, Networks []string
	CatchAll                     bool
	Pushed                       bool   // mail comes to the customer's server from here
	TurnPort, POPPort            string // with TLS from the first octet where TurnTLS and POPTLS say so
	TurnTLS, POPTLS              bool
	Certificate                  bool // there is one, for TLS on the other ports
}

// Quoted is a text in a fetchmailrc, which ends at the first quote, with or without a backslash before it.
func (setting) Quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\042`).Replace(s) + `"`
}

func (d *desk) sheet(ctx context.Context, name string) (*customerSheet, error) {
	all, a, err := d.account(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(a.Domains) == 0 {
		return nil, fmt.Errorf(`%s has no domain, so there is nothing to set up; "mailbag domain add" gives it one`, name)
	}
	hostname, err := d.hostname(ctx)
	if err != nil {
		return nil, err
	}
	s := &customerSheet{Title: "Mail account " + a.Name, Hostname: hostname}
	with := d.setting(all, a, hostname)
	d.facts(s, all, a, with)
	texts := template.Must(template.ParseFS(pages, "pages/settings.txt"))
	for _, program := range []struct{ name, title string }{
		{"fetchmail", "Fetchmail"}, {"postfix", "Postfix"}, {"exim", "Exim"}, {"exchange", "Exchange"}, {"mdaemon", "MDaemon"},
	} {
		var text bytes.Buffer
		if err := texts.ExecuteTemplate(&text, program.name, with); err != nil {
			return nil, err
		}
		if text.Len() > 0 {
			s.Settings = append(s.Settings, sheetSetting{program.title, text.String()})
		}
	}
	return s, nil
}

func (d *desk) setting(all *meter.Directory, a *meter.Account, hostname string) setting {
	s := setting{Hostname: hostname, Mode: string(a.Mode), Server: a.Host, Domains: a.Domains,
		CatchAll: a.CatchAll, Pushed: a.Mode == meter.Backup || a.Mode == meter.ETRN}
	if s.Server == "" {
		s.Server = "your mail server"
	}
	if hasLogin(a) {
		s.User = a.Name
	}
	for _, network := range a.Networks {
		s.Networks = append(s.Networks, network.String())
	}
	for _, key := range all.Mailboxes(a) {
		at := strings.LastIndexByte(key, '@')
		s.Mailboxes = append(s.Mailboxes, meter.Address{Local: key[:at], Domain: key[at+1:]}.String()) // as a log-in is written
	}
	_, err := os.Stat(d.settings.TLS.Certificate)
	s.Certificate = !errors.Is(err, fs.ErrNotExist)
	s.TurnPort, s.TurnTLS = portFor(d.settings.Turn.Listen, d.settings.Turn.ListenTLS, s.Certificate)
	s.POPPort, s.POPTLS = portFor(d.settings.POP.Listen, d.settings.POP.ListenTLS, s.Certificate)
	return s
}

// portFor is the port that customers are told, one with TLS where there are such and a certificate.
func portFor(plain, encrypted []settings.Address, certificate bool) (port string, tls bool) {
	if len(encrypted) > 0 && certificate {
		return portOf(encrypted[0]), true
	}
	if len(plain) > 0 {
		return portOf(plain[0]), false
	}
	return "(none)", false
}

func portOf(a settings.Address) string {
	_, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return a.String() // a socket, which no customer reaches
	}
	return port
}

// facts are the lines at the top of the sheet.
func (d *desk) facts(s *customerSheet, all *meter.Directory, a *meter.Account, with setting) {
	fact := func(name string, lines ...string) {
		if len(lines) > 0 {
			s.Facts = append(s.Facts, sheetFact{name, lines})
		}
	}
	t := d.tariff().For(a)
	fact("Domains", a.Domains...)
	fact("MX records", mxRecords(a, s.Hostname)...)
	fact("Mail", delivery(a, s.Hostname)...)
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
		fact("Mailboxes", with.Mailboxes...)
	}
	if with.User != "" || len(with.Mailboxes) > 0 {
		fact("Password", "the one that you were given; it is not on this sheet")
	}
	if a.Mode != meter.POP3 {
		fact("Networks", with.Networks...)
	}
	fact("Monthly limit", fmt.Sprintf("%s messages or %s, whichever comes first", grouped(t.Messages), exactSize(t.Bytes)), aboveLimit(t))
	fact("Price", fmt.Sprintf("%s %s a month up to the limit", money(t.BasePrice), t.Currency))
	fact("Hold time", units.FormatDuration(a.HoldTime())+"; what waits for longer goes back to its sender")
	if a.Mode == meter.POP3 && a.Quota > 0 {
		fact("Storage", exactSize(a.Quota)+"; while it is full, mail waits for the hold time")
	}
	if a.Contact != "" {
		fact("Notices go to", a.Contact)
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

// mxRecords are lines of a zone (RFC 1035, section 5). The customer's own server comes first where mail is
// to go there directly, as long as it is there.
func mxRecords(a *meter.Account, hostname string) (lines []string) {
	for _, domain := range a.Domains {
		if a.Mode != meter.Backup {
			lines = append(lines, fmt.Sprintf("%s. IN MX 10 %s.", domain, hostname))
			continue
		}
		own := "your-mail-server." + domain
		if h, err := meter.ParseHost(a.Host); err == nil && net.ParseIP(h.Name) == nil {
			own = h.Name
		}
		lines = append(lines, fmt.Sprintf("%s. IN MX 10 %s.", domain, own), fmt.Sprintf("%s. IN MX 20 %s.", domain, hostname))
	}
	return lines
}

// delivery says how mail comes to the customer.
func delivery(a *meter.Account, hostname string) []string {
	switch a.Mode {
	case meter.ETRN:
		return append([]string{"is held until your mail server says ETRN (RFC 1985) to " + hostname, "from one of the networks below, and is then delivered to " + a.Host}, demandedTLS(a)...)
	case meter.ATRN:
		lines := []string{"is held until your mail server logs in and says ATRN (RFC 2645),", "and is delivered over the same connection"}
		if len(a.Networks) > 0 {
			lines = append(lines, "Log-ins are taken from the networks below only")
		}
		return lines
	case meter.POP3:
		if a.CatchAll {
			return []string{"is fetched by POP3 (RFC 1939)", "Whom a message is for stands in its header X-Envelope-To"}
		}
		return []string{"is fetched by POP3 (RFC 1939), from each mailbox with its own log-in"}
	}
	to := "your mail server"
	if a.Host != "" {
		to = a.Host
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
