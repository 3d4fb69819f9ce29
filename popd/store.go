package popd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"mailbag/popd/maildir"
)

// A Store is where the mail of pop3 accounts is, a folder for each account:
//
//	ACCOUNT/catch-all                  the Maildir of the account itself
//	ACCOUNT/mailboxes/DOMAIN/USER      that of a mailbox; in USER all but a-z, 0-9, -, _, +, = and inner dots
//	                                   is written as % and two digits; where the address had a mailbox before,
//	                                   a comma and a token stand behind
//	ACCOUNT,TOKEN                      what was in the folder of an account before that was added
//
// No name is used for another account or mailbox afterwards: who comes after somebody never sees his mail, whatever
// deliveries and sessions are under way.
//
// It knows nothing but these paths, and is safe for concurrent use by several processes.
type Store struct {
	root string
	now  func() time.Time

	mu       sync.Mutex
	measured map[string]*storage // by account
}

// NewStore returns the store in a directory, which need not be there yet. now is time.Now but in tests.
func NewStore(root string, now func() time.Time) *Store {
	return &Store{root: root, now: now, measured: map[string]*storage{}}
}

// Maildir is where mail of an account is kept: of one of its mailboxes, by what [meter.Directory.Maildir] names, or,
// where that is empty, of its catch-all.
func (s *Store) Maildir(account, mailbox string) *maildir.Maildir {
	if mailbox == "" {
		return maildir.At(filepath.Join(s.root, account, "catch-all"))
	}
	at := strings.LastIndexByte(mailbox, '@')
	domain, token, again := strings.Cut(mailbox[at+1:], ",")
	if again {
		token = "," + token
	}
	return maildir.At(filepath.Join(s.root, account, "mailboxes", domain, folder(mailbox[:at], maxFolder-len(token))+token))
}

// maxFolder is the longest name of a directory (NAME_MAX).
const maxFolder = 255

// folder is a name for a local part that no other has, and that is neither hidden nor leads anywhere else. The longest
// has so many octets.
func folder(local string, longest int) string {
	var b strings.Builder
	for i := range len(local) {
		c := local[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_+=", c) >= 0 || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() > longest {
		sum := sha256.Sum256([]byte(local))
		return "%-" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

// A place is where a Maildir is, or what is left of one.
type place struct {
	*maildir.Maildir
	mailbox string // address; empty: the catch-all
}

// places are where an account has Maildirs, or had.
func (s *Store) places(account string) ([]place, error) {
	all := []place{{s.Maildir(account, ""), ""}}
	mailboxes := filepath.Join(s.root, account, "mailboxes")
	domains, err := subdirectories(mailboxes)
	if err != nil {
		return nil, err
	}
	for _, domain := range domains {
		users, err := subdirectories(filepath.Join(mailboxes, domain))
		if err != nil {
			return nil, err
		}
		for _, user := range users {
			all = append(all, place{maildir.At(filepath.Join(mailboxes, domain, user)), resident(user) + "@" + domain})
		}
	}
	return all, nil
}

// Maildirs are all that an account has, or had.
func (s *Store) Maildirs(account string) ([]*maildir.Maildir, error) {
	places, err := s.places(account)
	all := make([]*maildir.Maildir, len(places))
	for i, p := range places {
		all[i] = p.Maildir
	}
	return all, err
}

// subdirectories are the names of the directories in one, none where it is not there.
func subdirectories(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Stored is how much mail there is.
type Stored struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"` // octets on the disk
}

// Stored is what an account has stored, in all its mailboxes, also those that were removed.
func (s *Store) Stored(account string) (Stored, error) {
	var all Stored
	places, err := s.places(account)
	if err != nil {
		return all, fmt.Errorf("the mail of %s cannot be counted: %w", account, err)
	}
	for _, p := range places {
		here, err := stored(p.Maildir)
		if err != nil {
			return all, err
		}
		all.Messages += here.Messages
		all.Bytes += here.Bytes
	}
	return all, nil
}

// StoredIn is what one mailbox of an account has stored, named as for [Store.Maildir].
func (s *Store) StoredIn(account, mailbox string) (Stored, error) {
	return stored(s.Maildir(account, mailbox))
}

func stored(d *maildir.Maildir) (Stored, error) {
	messages, octets, err := d.Usage()
	if err != nil {
		return Stored{}, fmt.Errorf("the mail in %s cannot be counted: %w", d.Path(), err)
	}
	return Stored{messages, octets}, nil
}

// Sweep removes what deliveries began and gave up ([maildir.Abandoned] ago), in all accounts, and returns how
// many files it were.
func (s *Store) Sweep(ctx context.Context) (removed int, err error) {
	before := s.now().Add(-maildir.Abandoned)
	accounts, err := subdirectories(s.root)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, account := range accounts {
		places, err := s.places(account)
		errs = append(errs, err)
		for _, p := range places {
			if ctx.Err() != nil {
				return removed, ctx.Err()
			}
			n, err := p.Sweep(before)
			removed += n
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return removed, errors.Join(errs...)
}
