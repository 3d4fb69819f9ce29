package popd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mailbag/meter"
	"mailbag/popd/maildir"
)

// A Holding is a Maildir with how much is in it.
type Holding struct {
	Account string `json:"account"` // whose it is, or was
	Mailbox string `json:"mailbox"` // address; empty: the catch-all
	Stored
	Path string `json:"path"`
}

// Holdings are what an account has, its catch-all first.
func (s *Store) Holdings(d *meter.Directory, a *meter.Account) ([]Holding, error) {
	var all []Holding
	for _, mailbox := range append([]string{""}, d.Mailboxes(a)...) {
		box := s.Maildir(a.Name, d.Maildir(mailbox))
		here, err := stored(box)
		if err != nil {
			return nil, err
		}
		all = append(all, Holding{a.Name, meter.Written(mailbox), here, box.Path()})
	}
	return all, nil
}

// Orphans are the Maildirs with mail that belongs to no mailbox and no account any more, so that nobody can fetch it: all
// of them, or those that were of one account.
func (s *Store) Orphans(d *meter.Directory, account string) ([]Holding, error) {
	folders, err := subdirectories(s.root)
	if err != nil {
		return nil, fmt.Errorf("orphaned mail cannot be looked for: %w", err)
	}
	var all []Holding
	for _, folder := range folders {
		name, _, _ := strings.Cut(folder, ",")
		if account != "" && name != account {
			continue
		}
		places, err := s.places(folder)
		if err != nil {
			return nil, fmt.Errorf("orphaned mail cannot be looked for: %w", err)
		}
		owned := s.owned(d, folder)
		for _, p := range places {
			if owned[p.Path()] {
				continue
			}
			here, err := stored(p.Maildir)
			if err != nil {
				return nil, err
			}
			if here.Messages > 0 {
				all = append(all, Holding{name, p.mailbox, here, p.Path()})
			}
		}
	}
	return all, nil
}

// owned are the paths of the Maildirs that an account has.
func (s *Store) owned(d *meter.Directory, account string) map[string]bool {
	a := d.Account(account)
	if a == nil {
		return nil
	}
	paths := map[string]bool{s.Maildir(account, "").Path(): true}
	for _, mailbox := range d.Mailboxes(a) {
		paths[s.Maildir(account, d.Maildir(mailbox)).Path()] = true
	}
	return paths
}

// resident is the local part whose [folder] it is, with or without a token, as SMTP writes it.
func resident(folder string) string {
	name, _, _ := strings.Cut(folder, ",")
	var local strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '%' && i+2 < len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				local.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		local.WriteByte(name[i])
	}
	return strings.TrimSuffix(meter.Written(local.String()+"@"), "@")
}

// SetAside gives what lies where an account is to have its mail, or, where a mailbox is named as for [Store.Maildir],
// that one, a name that no other has, and returns its path and how much it is. Where nothing lies there, the path is
// empty. It is for what is there before the ledger knows the account or the mailbox.
func (s *Store) SetAside(account, mailbox string) (path string, was Stored, err error) {
	from := filepath.Join(s.root, account)
	if mailbox == "" {
		was, err = s.Stored(account)
	} else {
		from = s.Maildir(account, mailbox).Path()
		was, err = s.StoredIn(account, mailbox)
	}
	if err != nil {
		return "", was, err
	}
	path = from + "," + strings.ToLower(rand.Text()[:8])
	if err = os.Rename(from, path); errors.Is(err, fs.ErrNotExist) {
		return "", Stored{}, nil
	}
	if err == nil {
		err = new(maildir.Syncer).Sync(filepath.Dir(path))
	}
	if err != nil {
		return "", was, fmt.Errorf("the mail in %s cannot be set aside: %w", from, err)
	}
	return path, was, nil
}

// Purge removes all the mail of an account, with its folder.
func (s *Store) Purge(account string) error {
	if !meter.ValidName(account) {
		return fmt.Errorf("%q is not the name of an account", account)
	}
	return os.RemoveAll(filepath.Join(s.root, account))
}

// PurgeMailbox removes the mail of a mailbox, named as for [Store.Maildir].
func (s *Store) PurgeMailbox(account, mailbox string) error {
	return os.RemoveAll(s.Maildir(account, mailbox).Path())
}
