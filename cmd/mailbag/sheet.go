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

// List writes a list of a configuration; see [listed].
func (setting) List(first, between, goesOn string, items []string) string {
	return listed(first, "        ", between, goesOn, items)
}

// Join writes a list in a sentence.
func (setting) Join(between string, items []string) string { return strings.Join(items, between) }

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
	for _, program := range []struct {
		name, title   string
		configuration bool
	}{
		{"fetchmail", "Fetchmail", true}, {"postfix", "Postfix", true}, {"exim", "Exim", true}, {"exchange", "Exchange", false}, {"mdaemon", "MDaemon", false},
	} {
		var text bytes.Buffer
		if err := texts.ExecuteTemplate(&text, program.name, with); err != nil {
			return nil, err
		}
		if text.Len() > 0 {
			s.Settings = append(s.Settings, sheetSetting{program.title, settingsText(text.String(), program.configuration)})
		}
	}
	return s, nil
}

func (d *desk) setting(all *meter.Directory, a *meter.Account, hostname string) setting {
	s := setting{Hostname: hostname, Mode: string(a.Mode), Server: yourServer, Domains: a.Domains,
		Mailboxes: written(all.Mailboxes(a)), CatchAll: a.CatchAll, Pushed: a.Mode == meter.Backup || a.Mode == meter.ETRN}
	if a.Host != "" {
		s.Server = hostInOwnLetters(a.Host)
	}
	if hasLogin(a) {
		s.User = a.Name
	}
	for _, network := range a.Networks {
		s.Networks = append(s.Networks, network.String())
	}
	s.Certificate = d.hasCertificate()
	s.TurnPort, s.TurnTLS = d.turnPort()
	s.POPPort, s.POPTLS = portFor(d.settings.POP.Listen, d.settings.POP.ListenTLS, s.Certificate)
	return s
}

// yourServer is what a customer's server is called whose name only the customer knows.
const yourServer = "your mail server"

func (d *desk) hasCertificate() bool {
	_, err := os.Stat(d.settings.TLS.Certificate)
	return !errors.Is(err, fs.ErrNotExist)
}

// turnPort is where customers are told to say ATRN.
func (d *desk) turnPort() (port string, tls bool) {
	return portFor(d.settings.Turn.Listen, d.settings.Turn.ListenTLS, d.hasCertificate())
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
