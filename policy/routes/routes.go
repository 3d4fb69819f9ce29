// Package routes makes the tables from which the MTA knows by itself whose a domain is, which way its mail leaves, and
// how the connection that it leaves by has to be encrypted. Postfix and Exim each have their own.
//
// # Promises
//
// Each domain of an account has exactly one way, a suspended account's too; an account whose way cannot be told has
// one that defers and says why, because without one its mail would leave by the way of strangers' mail. The same
// accounts make the same tables, octet for octet. A table is to be put in the place of the former one as a whole: a domain that
// the MTA relays and a domain that has a way are then the same ones, or mail would loop.
//
// # What it does not do
//
// It writes no files, and says nothing of recipients: that is package policy's part.
//
// # Security
//
// The tables name all domains, and the hosts of backup accounts. No password, and no address of a person, is in them. Nothing
// that an account can have makes Exim expand a value again, or read it as more than one.
package routes

import (
	"bytes"
	"io"

	"mailbag/meter"
)

// Names of the tables' files. Postfix names those that end in .cdb without the ending.
const (
	Domain = "domain.regexp" // of any key the domain
	Held   = "held.regexp"   // of a way whether mail waits there for a turn
	TLS    = "tls.cdb"       // of a next hop what the connection has to be (smtp_tls_policy_maps)
	Routes = "routes.cdb"    // of an account's domain the way of its mail: Postfix's transport(5), or Exim's fields
)

// A Table is a file's name and its content, which is made as it is written, and anew each time.
type Table struct {
	Name string
	io.WriterTo
}

// Content is all of it, for who has few accounts.
func (t Table) Content() ([]byte, error) {
	var all bytes.Buffer
	_, err := t.WriteTo(&all)
	return all.Bytes(), err
}

// text is a content that no account is part of.
type text string

func (t text) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, string(t))
	return int64(n), err
}

// Sockets are where Postfix's lmtp client finds mailbag-turnd and mailbag-popd.
type Sockets struct {
	Turns   string // directory of the accounts' turn sockets
	Deliver string // of the delivery into Maildirs
}

// Tables returns the tables for Postfix, in the order in which they are to be written: when a way appears, what
// belongs to it is there.
func (s Sockets) Tables(d *meter.Directory) []Table {
	return []Table{
		// A pattern is asked with the whole key only. Asked by itself, a cdb would take sub.acme.example for acme.example's
		// where parent_domain_matches_subdomains has it so, as it does for relay_domains.
		{Domain, text(`/^(.*@)?([^@]+)$/ $2` + "\n")},
		{Held, text("/^" + turnTransport + ":/ held\n")},
		{TLS, tlsPolicies(d)},
		{Routes, ways(d, s.way)},
	}
}
