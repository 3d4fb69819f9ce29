package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	processors "runtime"
	"sync"
	"sync/atomic"

	"mailbag/meter"
)

// A freshLogin is a log-in that an import makes.
type freshLogin struct {
	account  string
	key      string // the account's name or a mailbox's key
	cramMD5  bool
	password password
	verifier *meter.Verifier
}

// freshLogins are those that the drafts make and for which the ledger has no password yet.
func (d *desk) freshLogins(ctx context.Context, drafts []*draft) ([]freshLogin, error) {
	var logins []freshLogin
	for _, draft := range drafts {
		keys := draft.gains(mailboxesOf)
		if draft.became(hasLogin) {
			v, err := d.ledger.Verifier(ctx, draft.name())
			if err != nil {
				return nil, err
			}
			if v == nil {
				keys = append([]string{draft.name()}, keys...)
			}
		}
		for _, key := range keys {
			logins = append(logins, freshLogin{account: draft.name(), key: key, cramMD5: draft.after.CRAMMD5})
		}
	}
	return logins, nil
}

// checkPasswordsFile says why the file could not be written, before the work is done.
func (d *desk) checkPasswordsFile(file string) error {
	isStream, err := d.isStream(d.settings, file)
	if err != nil || isStream {
		return err
	}
	if _, err := os.Lstat(file); err == nil { // a link that leads nowhere, too
		return unwritten(file, fs.ErrExist)
	}
	return nil
}

// makePasswords makes a password and its verifier for each, on all processors: a verifier is costly by design.
func (d *desk) makePasswords(ctx context.Context, logins []freshLogin) error {
	var taken atomic.Int64
	var workers sync.WaitGroup
	made := make(chan error)
	for range min(processors.GOMAXPROCS(0), len(logins)) {
		workers.Go(func() {
			for i := taken.Add(1) - 1; i < int64(len(logins)) && ctx.Err() == nil; i = taken.Add(1) - 1 {
				l := &logins[i]
				l.password = password{generatePassword(), true}
				var err error
				l.verifier, err = l.password.verifier(l.cramMD5)
				made <- err
			}
		})
	}
	go func() {
		workers.Wait()
		close(made)
	}()
	defer d.endProgress()
	var failures error
	n := 0
	for err := range made {
		n++
		failures = errors.Join(failures, err)
		d.showProgress("%s %s of %s passwords", bar(int64(n), int64(len(logins)), 20), grouped(int64(n)), grouped(int64(len(logins))))
	}
	return errors.Join(failures, ctx.Err())
}

// writePasswords writes the file of the passwords, which is on the disk then. It reports whether it is a file.
func (d *desk) writePasswords(file string, logins []freshLogin) (bool, error) {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	w.UseCRLF = true // RFC 4180, section 2
	records := [][]string{{"name", "login", "password"}}
	for _, l := range logins {
		records = append(records, []string{l.account, freeText(meter.Written(l.key)), l.password.text})
	}
	if err := w.WriteAll(records); err != nil {
		return false, err
	}
	return d.writeText(file, text.Bytes(), 0o600)
}

// inForce reports whether the verifiers are those of the ledger: all of them are, or none.
func (d *desk) inForce(ctx context.Context, logins []freshLogin) (bool, error) {
	v, err := d.ledger.Verifier(ctx, logins[0].key)
	return err == nil && v != nil && bytes.Equal(v.StoredKey, logins[0].verifier.StoredKey), err
}
