package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// A field is a property of an account that a flag gives to it.
type field struct {
	flag  string
	help  string
	modes []meter.Mode // that have this property; nil: all
	words []string     // that can be its value; nil: others
	property
}

// A property is where a field is kept.
type property struct {
	value func(*meter.Account) pflag.Value
	copy  func(to, from *meter.Account)
}

// The words that some properties take.
var (
	recipientChecks = []meter.RecipientCheck{meter.AnyRecipient, meter.ListedRecipient, meter.VerifiedRecipient}
	limitActions    = []meter.OnLimit{meter.Bill, meter.Defer, meter.Reject}
	copiesKept      = []meter.Copies{meter.PerRecipient, meter.SingleCopy}
	yesOrNo         = []string{"yes", "no"}
)

// fields are all properties of an account but its name, its domains and its networks.
var fields = []field{
	{"mode", "what happens to the mail: backup (relayed), etrn or atrn (held until asked for), pop3 (mailboxes)", nil,
		texts(meter.Modes), value("MODE", choice(meter.Modes...), func(a *meter.Account) *meter.Mode { return &a.Mode })},
	{"host", "the customer's server, as HOST or HOST:PORT; empty for a backup account: by MX", []meter.Mode{meter.Backup, meter.ETRN},
		nil, value("HOST", orEmpty(hostName), func(a *meter.Account) *string { return &a.Host })},
	{"tls", "how mail goes to that server: opportunistic (default; in the clear where TLS does not come about), require (by TLS or not at all), verify (and with a valid certificate)", []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN},
		texts(meter.TLSLevels), value("LEVEL", choice(meter.TLSLevels...), func(a *meter.Account) *meter.TLSLevel { return &a.TLS })},
	{"recipients", "which are accepted: any, list (see mailbag recipient), verify (the customer's server is asked; backup only)", nil,
		texts(recipientChecks), value("CHECK", choice(recipientChecks...), func(a *meter.Account) *meter.RecipientCheck { return &a.Recipients })},
	{"messages", "messages in a monthly tier; 0: as in the settings", nil,
		nil, value("N", orEmpty(count), func(a *meter.Account) *int64 { return &a.Messages })},
	{"bytes", "size of a monthly tier, such as 500MB, 1GB, 2GiB; 0: as in the settings", nil,
		nil, value("SIZE", orEmpty(units.ParseSize), func(a *meter.Account) *int64 { return &a.Bytes })},
	{"on-limit", "what happens above the first tier: bill, defer (452), reject (552); empty: as in the settings", nil,
		texts(limitActions), value("ACTION", orEmpty(choice(limitActions...)), func(a *meter.Account) *meter.OnLimit { return &a.OnLimit })},
	{"max-tiers", "with bill: defer (452) above so many tiers; 0: no bound", nil,
		nil, value("N", orEmpty(count), func(a *meter.Account) *int64 { return &a.MaxTiers })},
	{"base-price", "price of a month with its first tier, such as 10.00; empty: as in the settings", nil,
		nil, value("AMOUNT", orEmpty(price), func(a *meter.Account) *meter.Price { return &a.BasePrice })},
	{"tier-price", "price of each further tier, such as 10.00; empty: as in the settings", nil,
		nil, value("AMOUNT", orEmpty(price), func(a *meter.Account) *meter.Price { return &a.TierPrice })},
	{"waiting-messages", "how many messages may wait in the MTA's queue; above that mail is deferred (452); 0: no bound", []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN},
		nil, value("N", orEmpty(count), func(a *meter.Account) *int64 { return &a.WaitingMessages })},
	{"waiting-bytes", "how much of it, such as 500MB, 1GB; 0: no bound", []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN},
		nil, value("SIZE", orEmpty(units.ParseSize), func(a *meter.Account) *int64 { return &a.WaitingBytes })},
	{"hold", "how long mail may wait before it goes back to its sender, such as 12h, 30d (at most 100d); 0: 5d for backup and pop3, 30d for etrn and atrn", nil,
		nil, value("DURATION", orEmpty(duration), func(a *meter.Account) *time.Duration { return &a.Hold })},
	{"contact", "where notices go; empty: nowhere", nil,
		nil, value("ADDRESS", orEmpty(contact), func(a *meter.Account) *string { return &a.Contact })},
	{"cram-md5", "keep what CRAM-MD5 needs of the password too; --cram-md5=no does not, which is the default but for atrn (RFC 2645 demands it)", []meter.Mode{meter.ATRN, meter.POP3},
		yesOrNo, value("YES|NO", yesNo, func(a *meter.Account) *bool { return &a.CRAMMD5 })},
	{"catch-all", "store mail for every address of the domains, fetched with the account's own log-in: yes (default) or no", []meter.Mode{meter.POP3},
		yesOrNo, value("YES|NO", yesNo, func(a *meter.Account) *bool { return &a.CatchAll })},
	{"copies", "of a message to several addresses, the catch-all keeps one per-recipient (default) or a single one", []meter.Mode{meter.POP3},
		texts(copiesKept), value("HOW", choice(copiesKept...), func(a *meter.Account) *meter.Copies { return &a.Copies })},
	{"quota", "how much mail may be stored, such as 5GB; 0: no bound", []meter.Mode{meter.POP3},
		nil, value("SIZE", orEmpty(units.ParseSize), func(a *meter.Account) *int64 { return &a.Quota })},
}

// addFields gives a command a flag for every field, which set given.
func addFields(cmd *cobra.Command, given *meter.Account) {
	for _, f := range fields {
		v := cmd.Flags().VarPF(f.value(given), f.flag, "", f.help)
		if f.flag == "cram-md5" {
			v.NoOptDefVal = "yes" // --cram-md5 alone is what the synopsis has
		}
	}
}

// checkFields refuses flags that mean nothing to an account of this mode.
func checkFields(cmd *cobra.Command, mode meter.Mode) error {
	for _, f := range fields {
		if cmd.Flags().Changed(f.flag) && f.modes != nil && !slices.Contains(f.modes, mode) {
			return wrongUsage(cmd, "--%s does not fit the mode %s, only %s", f.flag, mode, list(f.modes))
		}
	}
	return nil
}

// copyFields copies what the command line gives.
func copyFields(cmd *cobra.Command, to, given *meter.Account) {
	for _, f := range fields {
		if cmd.Flags().Changed(f.flag) {
			f.copy(to, given)
		}
	}
}

// parsed is the value of a flag that is read by a function.
type parsed[T any] struct {
	to    *T
	parse func(string) (T, error)
	kind  string
	text  string
}

// value is the property at a place in the account, read by parse; kind stands for it in help texts.
func value[T any](kind string, parse func(string) (T, error), at func(*meter.Account) *T) property {
	return property{
		value: func(a *meter.Account) pflag.Value { return &parsed[T]{to: at(a), parse: parse, kind: kind} },
		copy:  func(to, from *meter.Account) { *at(to) = *at(from) },
	}
}

func (p *parsed[T]) String() string { return p.text }
func (p *parsed[T]) Type() string   { return p.kind }

func (p *parsed[T]) Set(s string) error {
	v, err := p.parse(s)
	if err != nil {
		return err
	}
	*p.to, p.text = v, s
	return nil
}

// orEmpty reads an empty text as the zero value, which stands for the default.
func orEmpty[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		if s == "" {
			var zero T
			return zero, nil
		}
		return parse(s)
	}
}

// choice reads one of a few words.
func choice[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if slices.Contains(words, T(s)) {
			return T(s), nil
		}
		return "", fmt.Errorf("it is none of %s", list(words))
	}
}

func texts[T ~string](words []T) []string {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return texts
}

func list[T ~string](words []T) string { return strings.Join(texts(words), ", ") }

func yesNo(s string) (bool, error) {
	switch s {
	case "yes", "true":
		return true, nil
	case "no", "false":
		return false, nil
	}
	return false, errors.New("it is neither yes nor no")
}

func count(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("it is not a whole number from 0 up")
	}
	return n, nil
}

func duration(s string) (time.Duration, error) {
	d, err := units.ParseDuration(s)
	switch {
	case err != nil:
		return 0, err
	case d > meter.MaxHold:
		return 0, fmt.Errorf("it is longer than %s, the most that mail is kept", units.FormatDuration(meter.MaxHold))
	case d%time.Second != 0:
		return 0, errors.New("it is not in whole seconds")
	}
	return d, nil
}

func price(s string) (meter.Price, error) {
	cents, err := units.ParseMoney(s)
	return meter.Price{Set: err == nil, Cents: meter.Cents(cents)}, err
}

func hostName(s string) (string, error) {
	h, err := meter.ParseHost(s)
	return h.String(), err
}

func contact(s string) (string, error) {
	a, err := meter.ParseAddress(s)
	return a.String(), err
}
