package meter

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
)

const (
	scramIterations = 10000 // RFC 7677, section 4, asks for 4096 at least
	scramSalt       = 16    // octets
	maxPassword     = 128   // octets

	md5Magic = "md5\x01" // how crypto/md5 begins its marshalled state
)

// A Verifier is what is kept of a password: enough to check it, and for SCRAM-SHA-256 (RFC 5802,
// section 3) to prove to a client that the server knows it, but not the password.
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
	CRAMMD5    []byte // HMAC-MD5's inner and outer state over the password, 16 octets each; nil: not kept
}

// NewVerifier makes the verifier of a password, with CRAM-MD5's state (RFC 2195) where cramMD5 is
// true. The error ([ErrInvalid]) says what is wrong with the password and does not quote it.
func NewVerifier(password string, cramMD5 bool) (*Verifier, error) {
	switch {
	case password == "":
		return nil, invalid("the password is empty")
	case len(password) > maxPassword:
		return nil, invalid("the password is longer than %d octets", maxPassword)
	case !utf8.ValidString(password):
		return nil, invalid("the password is not UTF-8")
	}
	// RFC 5802, section 2.2: SASLprep, as every SCRAM client applies it.
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil || prepared == "" {
		return nil, invalid("the password has a character that SASLprep (RFC 4013) forbids, such as a control character")
	}
	v := &Verifier{Salt: make([]byte, scramSalt), Iterations: scramIterations}
	rand.Read(v.Salt)
	if v.StoredKey, v.ServerKey, err = scramKeys(prepared, v.Salt, v.Iterations); err != nil {
		return nil, err
	}
	if cramMD5 {
		v.CRAMMD5 = cramState(password)
	}
	return v, nil
}

// Matches reports whether the password is the verifier's, in constant time. A nil verifier takes
// as long as another and matches nothing, so that a missing account cannot be told by the clock.
func (v *Verifier) Matches(password string) bool {
	known := v != nil
	if !known {
		v = &Verifier{Salt: make([]byte, scramSalt), Iterations: scramIterations, StoredKey: make([]byte, sha256.Size)}
	}
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		prepared = password
	}
	stored, _, err := scramKeys(prepared, v.Salt, v.Iterations)
	return err == nil && subtle.ConstantTimeCompare(stored, v.StoredKey) == 1 && known
}

// scramKeys derives StoredKey and ServerKey (RFC 5802, section 3).
func scramKeys(prepared string, salt []byte, iterations int) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, prepared, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	sum := sha256.Sum256(sign("Client Key"))
	return sum[:], sign("Server Key"), nil
}

// cramState is the state of MD5 after the first block of HMAC's inner and outer hash (RFC 2104,
// section 4, describes this way to keep a key).
func cramState(password string) []byte {
	key := []byte(password)
	if len(key) > md5.BlockSize {
		sum := md5.Sum(key)
		key = sum[:]
	}
	var state []byte
	for _, pad := range []byte{0x36, 0x5c} {
		var block [md5.BlockSize]byte
		copy(block[:], key)
		for i := range block {
			block[i] ^= pad
		}
		h := md5.New()
		h.Write(block[:])
		marshalled, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			panic(err) // crypto/md5 promises that it can
		}
		state = append(state, marshalled[len(md5Magic):len(md5Magic)+md5.Size]...)
	}
	return state
}

// AnswersCRAM reports whether the digest is what CRAM-MD5 (RFC 2195, section 2) answers to the challenge
// with the verifier's password, in constant time. Without the state that it needs the answer is no.
func (v *Verifier) AnswersCRAM(challenge, digest []byte) bool {
	if len(v.CRAMMD5) != 2*md5.Size {
		return false
	}
	inner := resumeMD5(v.CRAMMD5[:md5.Size], challenge)
	return hmac.Equal(resumeMD5(v.CRAMMD5[md5.Size:], inner), digest)
}

// resumeMD5 goes on from the state after one block.
func resumeMD5(state, text []byte) []byte {
	marshalled := append([]byte(md5Magic), state...)
	marshalled = append(marshalled, make([]byte, md5.BlockSize)...) // nothing of a second block
	marshalled = binary.BigEndian.AppendUint64(marshalled, md5.BlockSize)
	h := md5.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(marshalled); err != nil {
		panic(err) // crypto/md5 promises to read what it wrote
	}
	h.Write(text)
	return h.Sum(nil)
}

// Decoy is what a server uses for a log-in that has no verifier: nothing matches it, checking takes
// as long as with another, and its salt, which SCRAM shows to whoever asks, is the same whenever
// and wherever that log-in is tried. Logins must be given in one spelling, as stored ones are.
func (d *Directory) Decoy(login string) *Verifier {
	derive := func(purpose string) []byte {
		mac := hmac.New(sha256.New, d.decoy)
		mac.Write([]byte(purpose + " " + login))
		return mac.Sum(nil)
	}
	return &Verifier{
		Salt:       derive("salt")[:scramSalt],
		Iterations: scramIterations,
		StoredKey:  derive("stored key"),
		ServerKey:  derive("server key"),
		CRAMMD5:    derive("cram"),
	}
}

// SetPassword gives a new verifier to a log-in: an account's name or one of its mailboxes' address.
func (l *Ledger) SetPassword(ctx context.Context, name, login string, v *Verifier) error {
	return l.change(ctx, name, "passwd "+login, setVerifier(login, name, v, l.opt.Now().UnixMilli()))
}

// Verifier returns the verifier of a log-in, nil when it has none.
func (l *Ledger) Verifier(ctx context.Context, login string) (*Verifier, error) {
	db, err := l.reader(ctx)
	if err != nil {
		return nil, err
	}
	var v Verifier
	err = db.QueryRowContext(ctx, `
		SELECT salt, iterations, stored_key, server_key, cram_md5 FROM credential WHERE login = ?`, login).
		Scan(&v.Salt, &v.Iterations, &v.StoredKey, &v.ServerKey, &v.CRAMMD5)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the verifier: %w", unavailable(err))
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

// check refuses a verifier that [NewVerifier] would not make.
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
