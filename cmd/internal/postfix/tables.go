package postfix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// tables is the directory of the files in which Postfix finds by itself whose domain is an account's and which way its
// mail takes, so that others' mail depends on no daemon of ours. mailbag-policyd writes them, package routes says how.
//
// Questions go through a pipe whose first table is regexp. That makes a domain of an address, and it makes
// Postfix ask with the whole key only (pipemap takes its flags from its first table): a bare cdb table in a list of
// domains matches their subdomains as well (parent_domain_matches_subdomains), which nobody asked us to relay for. And it
// lets one file answer all questions: there is no moment in which a domain is relayed and has no route.
type tables string

// files are all that have to be there. Postfix answers 451 to everybody where one is missing.
var files = []string{"routes.cdb", "tls.cdb", "domain.regexp", "held.regexp"}

// routes finds the route of an address or a domain.
func (t tables) routes() string { return t.pipe("") }

// ways finds the route of a domain, for transport_maps: there Postfix allows no table that takes its answer from the
// question, as domain.regexp does, and asks for parent domains only as ".example.com", which is no key.
func (t tables) ways() string { return "cdb:" + t.path("routes") }

// recipients finds, for what has a route, the restriction class that asks mailbag-policyd.
func (t tables) recipients() string { return t.pipe(", static:" + recipientClass) }

// check is our check in a list of restrictions.
func (t tables) check() string { return "check_recipient_access " + t.recipients() }

// held finds what waits for a turn.
func (t tables) held() string { return t.pipe(", regexp:" + t.path("held.regexp")) }

func (t tables) pipe(end string) string {
	return "pipemap:{regexp:" + t.path("domain.regexp") + ", cdb:" + t.path("routes") + end + "}"
}

// tls finds what TLS a next hop has to have.
func (t tables) tls() string { return "cdb:" + t.path("tls") }

func (t tables) path(name string) string { return filepath.Join(string(t), name) }

// plain is a path that needs no quoting anywhere in main.cf.
var plain = regexp.MustCompile(`^/[\w./+-]*$`)

// nameable says why main.cf cannot name the directory.
func (t tables) nameable() error {
	if !plain.MatchString(string(t)) {
		return fmt.Errorf("the directory %q of the tables cannot be named in main.cf: it has to be absolute, of letters, digits and . _ + -; change tables in [policy]", string(t))
	}
	return nil
}

// Complete returns nil when all files are there, or names one that is not.
func (t tables) Complete() error {
	for _, name := range files {
		if _, err := os.Stat(t.path(name)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no file %s, without which Postfix answers 451 to all mail", t.path(name))
		} else if err != nil {
			return fmt.Errorf("the tables of mailbag cannot be read: %w", err)
		}
	}
	return nil
}
