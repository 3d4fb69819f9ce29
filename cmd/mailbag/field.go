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

// A field is a property of an account or of a plan that a flag gives to it.
type field[Of any] struct {
	flag  string
	help  string
	modes []meter.Mode // that have this property; nil: all
	words []string     // that can be its value; nil: others
	property[Of]
}

// A property is where a field is kept.
type property[Of any] struct {
	value func(*Of) pflag.Value
	copy  func(to, from *Of)
}

// The words that some properties take.
var (
	recipientChecks = []meter.RecipientCheck{meter.AnyRecipient, meter.ListedRecipient, meter.VerifiedRecipient}
	limitActions    = []meter.OnLimit{meter.Bill, meter.Defer, meter.Reject}
	copiesKept      = []meter.Copies{meter.PerRecipient, meter.SingleCopy}
	yesOrNo         = []string{"yes", "no"}
)

// fields are all properties of an account but its name, its domains and its networks.
var fields = slices.Concat([]field[meter.Account]{
	{"mode", "what happens to the mail: backup (relayed), etrn or atrn (held until asked for), pop3 (mailboxes)", nil,
		texts(meter.Modes), value("MODE", choice(meter.Modes...), func(a *meter.Account) *meter.Mode { return &a.Mode })},
	{"host", "the customer's server, as HOST or HOST:PORT; empty for a backup account: by MX", []meter.Mode{meter.Backup, meter.ETRN},
		nil, value("HOST", orEmpty(hostName), func(a *meter.Account) *string { return &a.Host })},
	{"tls", "how mail goes to that server: opportunistic (default; in the clear where TLS does not come about), require (by TLS or not at all), verify (and with a valid certificate)", []meter.Mode{meter.Backup, meter.ETRN, meter.ATRN},
		texts(meter.TLSLevels), value("LEVEL", choice(meter.TLSLevels...), func(a *meter.Account) *meter.TLSLevel { return &a.TLS })},
	{"recipients", "which are accepted: any, list (see mailbag recipient), verify (the customer's server is asked; backup only)", nil,
		texts(recipientChecks), value("CHECK", choice(recipientChecks...), func(a *meter.Account) *meter.RecipientCheck { return &a.Recipients })},
	{"plan", "price plan whose terms it has where it has none of its own (see mailbag plan); empty: none", nil,
		nil, value("PLAN", orEmpty(planName), func(a *meter.Account) *string { return &a.Plan })},
}, in(termFields, func(a *meter.Account) *meter.Terms { return &a.Terms }), []field[meter.Account]{
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
	{"customer", "what your books call the customer, such as a number; on bills", nil,
		nil, value("TEXT", textLine, func(a *meter.Account) *string { return &a.Customer })},
	{"note", "what else you should know of it; on no page that a customer sees", nil,
		nil, value("TEXT", textLine, func(a *meter.Account) *string { return &a.Note })},
})

// in makes the fields of a part those of what has it.
func in[Whole, Part any](fields []field[Part], part func(*Whole) *Part) []field[Whole] {
	var all []field[Whole]
	for _, f := range fields {
		all = append(all, field[Whole]{f.flag, f.help, f.modes, f.words, property[Whole]{
			value: func(w *Whole) pflag.Value { return f.value(part(w)) },
			copy:  func(to, from *Whole) { f.copy(part(to), part(from)) },
		}})
	}
	return all
}

// addFields gives a command a flag for every field, which set given.
func addFields[Of any](cmd *cobra.Command, fields []field[Of], given *Of) {
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

// anyGiven reports whether the command line gives any of the fields.
func anyGiven[Of any](cmd *cobra.Command, fields []field[Of]) bool {
	return slices.ContainsFunc(fields, func(f field[Of]) bool { return cmd.Flags().Changed(f.flag) })
}

// copyFields copies what the command line gives.
func copyFields[Of any](cmd *cobra.Command, fields []field[Of], to, given *Of) {
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

// value is the property at a place, read by parse; kind stands for it in help texts.
func value[Of, T any](kind string, parse func(string) (T, error), at func(*Of) *T) property[Of] {
	return property[Of]{
		value: func(of *Of) pflag.Value { return &parsed[T]{to: at(of), parse: parse, kind: kind} },
		copy:  func(to, from *Of) { *at(to) = *at(from) },
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

// present writes the value that is there so that Set reads it as the same; empty: the default.
func (p *parsed[T]) present() string { return fieldText(*p.to) }

// fieldText writes the value of a field so that it is read as the same.
func fieldText(value any) string {
	switch v := value.(type) {
	case int64:
		if v == 0 {
			return ""
		}
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case time.Duration:
		if v == 0 {
			return ""
		}
		return units.FormatDuration(v)
	case meter.Price:
		if !v.Set {
			return ""
		}
		return v.Cents.String()
	}
	return fmt.Sprint(value)
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

func planName(s string) (string, error) {
	if !meter.ValidName(s) {
		return "", errors.New("it is not the name of a plan: 1 to 32 of a-z, 0-9 and hyphen")
	}
	return s, nil
}

// textLine is a line of text, without the spaces around it.
func textLine(s string) (string, error) { return strings.TrimSpace(s), nil }
