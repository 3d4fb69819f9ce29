package login

import (
	"strings"

	"mailbag/meter"
)

// An Identity is who logged in.
type Identity struct {
	Login   string // under which the ledger has the verifier
	Account *meter.Account
	Mailbox string // the key of the mailbox's address; empty: the account itself
	Maildir string // the mailbox's, by which it is told from others that had the address ([meter.Directory.Maildir])
}

// Names finds out whose log-in a name is. For one that is nobody's it returns false, and an identity
// whose Login is the name in the one spelling that all names of the same meaning have, so that it looks
// to the client like one that exists.
type Names func(d *meter.Directory, name string) (Identity, bool)

// AccountNames are the names of accounts, in any case.
func AccountNames(d *meter.Directory, name string) (Identity, bool) {
	id := Identity{Login: strings.ToLower(name)}
	id.Account = d.Account(id.Login)
	return id, id.Account != nil
}

// MailboxNames are what a POP3 client gives: the address of a mailbox, with @ or, where a client takes
// that for its own, with %; or the name of an account, or @ and one of its domains, for its catch-all. An account
// without a catch-all has no log-in of its own.
func MailboxNames(d *meter.Directory, name string) (Identity, bool) {
	if !strings.Contains(name, "@") {
		if percent := strings.LastIndexByte(name, '%'); percent >= 0 {
			name = name[:percent] + "@" + name[percent+1:]
		}
	}
	user, domain, isAddress := strings.Cut(name, "@")
	if isAddress && user != "" {
		return mailbox(d, name)
	}
	id, known := AccountNames(d, name)
	if isAddress {
		if normal, err := meter.NormalizeDomain(domain); err == nil {
			id = Identity{Login: "@" + normal, Account: d.Domain(normal)}
			if known = id.Account != nil; known {
				id.Login = id.Account.Name
			}
		}
	}
	return id, known && (id.Account.Mode != meter.POP3 || id.Account.CatchAll)
}

func mailbox(d *meter.Directory, name string) (Identity, bool) {
	addr, err := meter.ParseAddress(name)
	if err != nil {
		return Identity{Login: strings.ToLower(name)}, false
	}
	key := addr.Key()
	id := Identity{Login: key, Account: d.Mailbox(addr), Mailbox: key, Maildir: d.Maildir(key)}
	return id, id.Account != nil
}
