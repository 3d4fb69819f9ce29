package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

// A trial is an address that takes mail; of an account, or of the host itself.
type trial struct {
	account *meter.Account // nil: the host's
	address string
}

func (t trial) String() string {
	if t.account == nil {
		return t.address
	}
	return fmt.Sprintf("%s, account %s", t.address, t.account.Name)
}

// trials are an address of an account of each mode, suspended ones left out. Of accounts that ask the customer's server for
// each recipient there is one besides.
func (p *patient) trials(ctx context.Context) []trial {
	if p.accounts == nil {
		return nil
	}
	type kind struct {
		mode     meter.Mode
		verified bool
	}
	tried := map[kind]bool{}
	var all []trial
	for a := range p.accounts.Accounts() {
		of := kind{a.Mode, a.Recipients == meter.VerifiedRecipient}
		if a.Suspended || tried[of] || len(a.Domains) == 0 {
			continue
		}
		if address := p.accepted(ctx, a); address != "" {
			tried[of] = true
			all = append(all, trial{a, address})
		}
	}
	return all
}

// accepted is an address that the account accepts; empty: there is none. Where every one is accepted it is a new one each
// time, because the MTA may remember what it found out about an address.
func (p *patient) accepted(ctx context.Context, a *meter.Account) string {
	switch {
	case a.Mode == meter.POP3 && !a.CatchAll:
		for _, key := range p.accounts.Mailboxes(a) {
			if address := p.offered(key); address != "" {
				return address
			}
		}
		return ""
	case a.Recipients == meter.ListedRecipient:
		for key, err := range p.desk.ledger.Recipients(ctx, a.ID) {
			if address := p.offered(key); err != nil || address != "" {
				return address
			}
		}
		return ""
	case a.Recipients == meter.VerifiedRecipient:
		return "postmaster@" + a.Domains[0] // which every server has (RFC 5321, section 4.5.1)
	}
	return "doctor-" + strings.ToLower(rand.Text()[:8]) + "@" + a.Domains[0]
}

// offered is the address of a key as a command has it; empty: it would take SMTPUTF8 (RFC 6531), or the MTA refuses it to
// everybody, which is no fault of the service.
func (p *patient) offered(key string) string {
	address, err := meter.ParseAddress(meter.Written(key))
	if err != nil || p.words.Refuses(address.Local) != "" || strings.ContainsFunc(key, func(r rune) bool { return r > unicode.MaxASCII }) {
		return ""
	}
	return address.String()
}

// ofAccount reports whether a refusal is what the operator or the customer has said: suspended, a limit, a full mailbox
// (RFC 3463, section 3.3).
func (r reply) ofAccount() bool { return r.class(".2.") }

// class reports whether a reply's enhanced status code (RFC 3463) goes on like this behind its first digit.
func (r reply) class(subject string) bool {
	return len(r.lines) > 0 && len(r.lines[0]) > 1 && strings.HasPrefix(r.lines[0][1:], subject)
}

// examineSMTP does what a sender does, up to RCPT.
func (p *patient) examineSMTP(ctx context.Context) []diagnosis {
	if p.identity == nil {
		return nil
	}
	if len(p.identity.Doors) == 0 {
		return []diagnosis{{Part: "smtp", Result: illness, Text: p.words.Name + " listens nowhere for mail by SMTP: no mail comes in", readings: accepts("local", false),
			Remedy: "have it listen on port 25 again, and run: " + p.words.Reload}}
	}
	s := sender{patient: p, door: p.identity.Doors[0]}
	s.at = settings.Address{Network: "tcp", Address: s.door.Address}
	for _, h := range foreignHolders([]front{{at: s.at}}, p.words.Program) {
		return []diagnosis{{Part: "smtp", Result: illness, Text: fmt.Sprintf("%s cannot have %s, which %s has: no mail comes in", p.words.Name, s.at, h),
			Remedy: "stop that program, and run: systemctl restart " + p.words.Unit, cause: takenPort}}
	}
	if !p.running {
		return []diagnosis{{Part: "smtp", readings: accepts("local", false)}}
	}
	// Verification may take some seconds, for which the others do not wait.
	others, verified := []trial{{address: "postmaster@" + p.identity.Hostname}}, []trial(nil)
	if p.identity.Wired {
		for _, t := range p.trials(ctx) {
			if t.account.Recipients == meter.VerifiedRecipient {
				verified = append(verified, t)
			} else {
				others = append(others, t)
			}
		}
	}
	slow := begin(ctx, func(ctx context.Context) ([]diagnosis, error) {
		if verified == nil {
			return nil, nil
		}
		return s.offer(ctx, verified), nil
	})
	found := s.offer(ctx, others)
	if more, err := slow(); err == nil && len(found) < 2 { // else the same is to be said
		found = append(found, more...)
	}
	var untold int
	for _, d := range found {
		if d.Text == "" {
			untold++
		}
	}
	if untold == len(found) {
		found = append(found, diagnosis{Part: "smtp", Result: well, Text: fmt.Sprintf("at %s mail is accepted for %s", s.at, told(append(others, verified...)))})
	}
	return found
}

// told names the accounts that were tried.
func told(all []trial) string {
	names := []string{"this host"}
	for _, t := range all[1:] {
		names = append(names, fmt.Sprintf("%s (%s)", t.account.Name, t.account.Mode))
	}
	return list(names)
}

// accepts is the reading whether mail is accepted.
func accepts(what string, is bool) []reading {
	value := 0.0
	if is {
		value = 1
	}
	return []reading{{"mailbag_smtp_accepts", []string{"what", what}, value}}
}

// A sender is a stranger's mail server, as far as RCPT.
type sender struct {
	*patient
	door mta.Door
	at   settings.Address
}

// offer offers a message to each of the addresses, and never sends one.
func (s sender) offer(ctx context.Context, to []trial) []diagnosis {
	d, err := converse(ctx, s.at, nil, s.door.TLS)
	if err != nil {
		return s.unheard(err)
	}
	defer d.bye()
	greeting, err := d.smtp("")
	if err != nil {
		return s.unheard(err)
	}
	if !greeting.positive() {
		return s.refusedByHost("a connection from "+d.conn.LocalAddr().String(), greeting)
	}
	if _, err = d.demand("EHLO " + s.identity.Hostname); err != nil {
		return s.unheard(err)
	}
	from, err := d.smtp("MAIL FROM:<>")
	if from.code == 530 { // TLS is wanted first (RFC 3207, section 4)
		if _, err = d.hello("EHLO " + s.identity.Hostname); err == nil {
			from, err = d.smtp("MAIL FROM:<>")
		}
	}
	if err != nil {
		return s.unheard(err)
	}
	if !from.positive() {
		return s.judge(trial{address: "anybody"}, from)
	}
	var found []diagnosis
	for i, t := range to {
		if i > 0 { // a message of its own: Exim takes none that is held for one recipient and not for another
			for _, command := range []string{"RSET", "MAIL FROM:<>"} {
				if _, err := d.demand(command); err != nil {
					return append(found, s.unheard(err)...)
				}
			}
		}
		r, err := d.smtp("RCPT TO:<" + t.address + ">")
		if err != nil {
			return append(found, s.unanswered(t, err)...)
		}
		found = append(found, s.judge(t, r)...)
	}
	if _, err := d.demand("RSET"); err != nil {
		return append(found, s.unheard(err)...)
	}
	return found
}

func (s sender) maillog() string { return s.words.Name + "'s log: " + s.words.Log }

// unheard is that the MTA does not answer as it should.
func (s sender) unheard(err error) []diagnosis {
	d := diagnosis{Part: "smtp", Result: illness, Text: fmt.Sprintf("%s at %s: %v", s.words.Name, s.at, err), Remedy: fmt.Sprintf("see %s; then run: systemctl restart %s", s.maillog(), s.words.Unit), readings: accepts("local", false),
		after: []cause{noMTA, down("mailbag-policyd"), takenPort}}
	if s.door.Screen && errors.Is(err, errSilence) {
		d.Result, d.Remedy = doubt, "postscreen lets even this host wait; see postscreen_access_list and postscreen_greet_wait in main.cf"
		d.readings = nil
	}
	return []diagnosis{d}
}

// unanswered is that the MTA took too long for a recipient.
func (s sender) unanswered(t trial, err error) []diagnosis {
	if t.account != nil && t.account.Recipients == meter.VerifiedRecipient && errors.Is(err, errSilence) {
		return []diagnosis{{Part: "smtp", Result: doubt, Text: fmt.Sprintf("whether %s exists is being asked at the customer's server, which does not answer yet; until it does every recipient is accepted", t),
			Remedy: "see whether the customer's server can be reached: mailbag account show " + t.account.Name, after: []cause{down("mailbag-policyd")}}}
	}
	return s.unheard(fmt.Errorf("RCPT for %s: %w", t, err))
}

// judge tells a fault of the service from what the host's operator, or the customer, wants.
func (s sender) judge(t trial, r reply) []diagnosis {
	what := "account"
	if t.account == nil {
		what = "local"
	}
	if r.positive() {
		return []diagnosis{{Part: "smtp", readings: accepts(what, true)}}
	}
	if t.account != nil && (r.ofAccount() || t.account.Recipients == meter.VerifiedRecipient && r.code/100 == 5) {
		return nil
	}
	ill := diagnosis{Part: "smtp", Result: illness, Text: fmt.Sprintf("mail for %s is not accepted at %s: %s", t, s.at, r), Remedy: "see " + s.maillog(), readings: accepts(what, false),
		after: []cause{noMTA, down("mailbag-policyd"), fullDisk, miswired}}
	if r.class(".3.5") { // smtpd(8) goes on saying so when what it could not open is there again
		ill.Remedy = fmt.Sprintf("run: %s; if that changes nothing, see %s", s.words.Reload, s.maillog())
	}
	text := strings.Join(r.lines, " ")
	relay := strings.Contains(text, "elay access denied") || strings.Contains(text, "elay not permitted")
	switch {
	case t.account != nil && t.account.Recipients == meter.VerifiedRecipient && r.code/100 == 4 && !r.class(".3."):
		return []diagnosis{{Part: "smtp", Result: doubt, Text: fmt.Sprintf("recipients of account %s cannot be verified: %s", t.account.Name, r),
			Remedy: "see whether the customer's server can be reached: mailbag account show " + t.account.Name}}
	case t.account != nil && relay && s.freshTables():
		ill.Result, ill.Remedy, ill.readings = doubt, "look again in 15 seconds, within which the MTA reads the tables that were just written", nil
	case t.account != nil && (relay || r.class(".1.")):
		ill.Remedy = fmt.Sprintf("run: %s; if that changes nothing: mailbag %s check", s.words.Reload, s.words.Command)
		ill.after = append(ill.after, noLedger, standsAside)
	case t.account != nil && r.class(".3.") && !s.door.Screen:
		ill.after = append(ill.after, noLedger, standsAside)
	case r.class(".3.") && (r.code == 451 || r.code == 452): // a lookup, the configuration, or the disk failed
	default:
		return s.refusedByHost("mail for "+t.String(), r)
	}
	return []diagnosis{ill}
}

// refusedByHost is a refusal that may well be meant: greylisting, or what the operator says of clients.
func (s sender) refusedByHost(what string, r reply) []diagnosis {
	return []diagnosis{{Part: "smtp", Result: doubt, Text: fmt.Sprintf("%s is refused at %s, as this host's own policy may want: %s", what, s.at, r),
		Remedy: "see whether that is meant, in " + s.maillog(), after: []cause{down("mailbag-policyd"), noMTA, miswired}}}
}

// freshTime is within which the MTA may not have read new tables yet.
const freshTime = 20 * time.Second

func (s sender) freshTables() bool {
	info, err := os.Stat(filepath.Join(s.settings.Policy.Tables, "routes.cdb"))
	return err == nil && time.Since(info.ModTime()) < freshTime
}
