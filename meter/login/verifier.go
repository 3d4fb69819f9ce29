package login

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"

	"mailbag/meter"
)

const (
	scramIterations = 10000 // RFC 7677, section 4, asks for 4096 at least
	scramSalt       = 16    // octets
	maxPassword     = 128   // octets

	md5Magic = "md5\x01" // how crypto/md5 begins its marshalled state
)

// NewVerifier makes the verifier of a password, with CRAM-MD5's state (RFC 2195) where cramMD5 is
// true. The error ([meter.ErrInvalid]) says what is wrong with the password and does not quote it.
func NewVerifier(password string, cramMD5 bool) (*meter.Verifier, error) {
	switch {
	case password == "":
		return nil, fmt.Errorf("%w: the password is empty", meter.ErrInvalid)
	case len(password) > maxPassword:
		return nil, fmt.Errorf("%w: the password is longer than %d octets", meter.ErrInvalid, maxPassword)
	case !utf8.ValidString(password):
		return nil, fmt.Errorf("%w: the password is not UTF-8", meter.ErrInvalid)
	}
	// RFC 5802, section 2.2: SASLprep, as every SCRAM client applies it.
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil || prepared == "" {
		return nil, fmt.Errorf("%w: the password has a character that SASLprep (RFC 4013) forbids, such as a control character",
			meter.ErrInvalid)
	}
	v := &meter.Verifier{Salt: make([]byte, scramSalt), Iterations: scramIterations}
	rand.Read(v.Salt)
	if v.StoredKey, v.ServerKey, err = scramKeys(prepared, v.Salt, v.Iterations); err != nil {
		return nil, err
	}
	if cramMD5 {
		v.CRAMMD5 = cramState(password)
	}
	return v, nil
}

// matches reports whether the password is the verifier's, in constant time.
func matches(v *meter.Verifier, password string) bool {
	prepared, err := stringprep.SASLprep.Prepare(password)
	if err != nil {
		prepared = password
	}
	stored, _, err := scramKeys(prepared, v.Salt, v.Iterations)
	return err == nil && subtle.ConstantTimeCompare(stored, v.StoredKey) == 1
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

// answersCRAM reports whether the digest is what CRAM-MD5 (RFC 2195, section 2) answers to the challenge
// with the verifier's password, in constant time. Without the state that it needs the answer is no.
func answersCRAM(v *meter.Verifier, challenge, digest []byte) bool {
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
