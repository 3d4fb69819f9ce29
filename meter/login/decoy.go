package login

import (
	"crypto/hmac"
	"crypto/sha256"

	"mailbag/meter"
)

// decoy is the verifier of a log-in that has none: nothing matches it, checking takes as long as with another, and its
// salt, which SCRAM shows to whoever asks, is the same whenever and wherever that log-in is tried.
func decoy(d *meter.Directory, login string) *meter.Verifier {
	derive := func(purpose string) []byte {
		mac := hmac.New(sha256.New, d.DecoyKey())
		mac.Write([]byte(purpose + " " + login))
		return mac.Sum(nil)
	}
	return &meter.Verifier{
		Salt:       derive("salt")[:scramSalt],
		Iterations: scramIterations,
		StoredKey:  derive("stored key"),
		ServerKey:  derive("server key"),
		CRAMMD5:    derive("cram"),
	}
}
