package meter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Form is what SCRAM shows of a verifier to whoever asks, but for the octets of the salt. Those that were made elsewhere
// have others than ours.
type Form struct {
	Iterations int
	Salt       int // octets
}

// A formCount is how many verifiers have a form.
type formCount struct {
	Form
	n int
}

// Forms returns how many of the log-ins that are most like this one have verifiers of each form: of the mailboxes of the
// account that has its domain, since passwords come from elsewhere by whole accounts; of all mailboxes where there are
// none; or of the accounts, where it is no address. The login must be in one spelling, as stored ones are.
func (d *Directory) Forms(login string) map[Form]int {
	at := strings.LastIndexByte(login, '@')
	if at <= 0 {
		return d.tally.accounts
	}
	if m := d.domains.get(login[at+1:]); m != nil && len(m.forms) > 0 {
		its := map[Form]int{}
		for _, f := range m.forms {
			its[f.Form] = f.n
		}
		return its
	}
	return d.tally.mailboxes
}

// DecoyKey is a secret of the ledger, from which to make up what log-ins show that do not exist.
func (d *Directory) DecoyKey() []byte { return d.decoyKey }

// KeepsCRAMMD5 reports whether any account of the mode keeps what CRAM-MD5 needs.
func (d *Directory) KeepsCRAMMD5(mode Mode) bool { return d.tally.cram[mode] > 0 }

// takeForms reads lines of whether a verifier is a mailbox's, its iterations and the octets of its salt.
func (m *member) takeForms(lines string) error {
	for line := range strings.Lines(lines) {
		var mailbox int
		var form Form
		if _, err := fmt.Sscan(line, &mailbox, &form.Iterations, &form.Salt); err != nil {
			return fmt.Errorf("a verifier of %s cannot be read: %w", m.Name, err)
		}
		if mailbox == 0 {
			m.login = form
			continue
		}
		its := m.own()
		i := slices.IndexFunc(its.forms, func(f formCount) bool { return f.Form == form })
		if i < 0 {
			i = len(its.forms)
			its.forms = append(its.forms, formCount{Form: form})
		}
		its.forms[i].n++
	}
	return nil
}

// A tally counts what is asked of all accounts together.
type tally struct {
	accounts  map[Form]int // verifiers of accounts' own log-ins
	mailboxes map[Form]int // and of mailboxes
	cram      map[Mode]int // accounts that keep what CRAM-MD5 needs
}

func newTally() tally { return tally{map[Form]int{}, map[Form]int{}, map[Mode]int{}} }

func (t tally) clone() tally {
	return tally{maps.Clone(t.accounts), maps.Clone(t.mailboxes), maps.Clone(t.cram)}
}

// count adds so many times what an account has; -1 takes it away.
func (t tally) count(m *member, by int) {
	if m.login != (Form{}) {
		add(t.accounts, m.login, by)
	}
	for _, f := range m.forms {
		add(t.mailboxes, f.Form, by*f.n)
	}
	if m.CRAMMD5 {
		add(t.cram, m.Mode, by)
	}
}

func add[K comparable](to map[K]int, key K, n int) {
	if to[key] += n; to[key] == 0 {
		delete(to, key)
	}
}
