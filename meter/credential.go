package meter

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
)

// A Verifier is what is kept of a password: enough to check it, and for SCRAM-SHA-256 (RFC 5802,
// section 3) to prove to a client that the server knows it, but not the password. Package login makes them.
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
	CRAMMD5    []byte // HMAC-MD5's inner and outer state over the password, 16 octets each; nil: not kept
}

// SetPassword gives a new verifier to a log-in: an account's name or one of its mailboxes' address.
func (l *Ledger) SetPassword(ctx context.Context, name, login string, v *Verifier) error {
	return l.change(ctx, name, "passwd "+Written(login), setVerifier(login, name, v, l.opt.Now().UnixMilli()))
}

// Verifier returns the verifier of a log-in, nil when it has none.
func (l *Ledger) Verifier(ctx context.Context, login string) (*Verifier, error) {
	var v Verifier
	err := l.row(ctx, `
		SELECT salt, iterations, stored_key, server_key, cram_md5 FROM credential WHERE login = ?`, login).
		Scan(&v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey, &v.CRAMMD5)
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the verifier: %w", err)
	}
	return &v, nil
}

func setVerifier(login, name string, v *Verifier, now int64) statement {
	return statement{`
		INSERT INTO credential (login, account, salt, iterations, stored_key, server_key, cram_md5, changed)
		VALUES (?, ` + accountID + `, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (login) DO UPDATE SET salt = excluded.salt, iterations = excluded.iterations,
			stored_key = excluded.stored_key, server_key = excluded.server_key,
			cram_md5 = excluded.cram_md5, changed = excluded.changed`,
		[]any{login, name, v.Salt, v.Iterations, v.StoredKey, v.ServerKey, v.CRAMMD5, now}}
}

// check refuses a verifier that no log-in could be checked by.
func (v *Verifier) check() error {
	switch {
	case len(v.Salt) < 8 || len(v.Salt) > 64:
		return errors.New("its salt is not 8 to 64 octets")
	case v.Iterations < 4096 || v.Iterations > 1_000_000: // RFC 7677, section 4; and what a log-in may cost
		return errors.New("its iterations are not 4,096 to 1,000,000")
	case len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size:
		return fmt.Errorf("its keys are not %d octets", sha256.Size)
	case v.CRAMMD5 != nil && len(v.CRAMMD5) != 2*md5.Size:
		return fmt.Errorf("its CRAM-MD5 state is not %d octets", 2*md5.Size)
	}
	return nil
}
