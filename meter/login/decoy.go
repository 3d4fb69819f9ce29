package login

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"mailbag/meter"
)

// decoy is the verifier of a log-in that has none: nothing matches it, and it shows the same whenever and wherever that
// log-in is tried. Its form is one of those that log-ins like it have, as often as they have it, so that neither SCRAM's
// first message nor the time that it takes to check tells it from theirs.
func decoy(d *meter.Directory, login string) *meter.Verifier {
	form := pretend(d, login)
	derive := func(purpose string) []byte { return derive(d, purpose, login, form) }
	var salt []byte
	for len(salt) < form.Salt {
		salt = append(salt, derive(fmt.Sprint("salt from ", len(salt)))...)
	}
	return &meter.Verifier{
		Salt:       salt[:form.Salt],
		Iterations: form.Iterations,
		StoredKey:  derive("stored key"),
		ServerKey:  derive("server key"),
		CRAMMD5:    derive("cram"),
	}
}

// pretend chooses the form by weighted rendezvous: each draws a number, and the highest wins. When one log-in of so many
// is given another form, as a new password does, one decoy of as many goes over to that form, and no other changes. Its
// salt is another one then, as theirs is.
func pretend(d *meter.Directory, login string) meter.Form {
	chosen, highest := meter.Form{Iterations: scramIterations, Salt: scramSalt}, math.Inf(-1)
	for form, n := range d.Forms(login) {
		bits := binary.BigEndian.Uint64(derive(d, "form", login, form)) >> 12
		drawn := float64(n) / -math.Log((float64(bits)+0.5)/(1<<52)) // of a number between 0 and 1, without either
		if drawn > highest {
			chosen, highest = form, drawn
		}
	}
	return chosen
}

func derive(d *meter.Directory, purpose, login string, form meter.Form) []byte {
	mac := hmac.New(sha256.New, d.DecoyKey())
	fmt.Fprintf(mac, "%s %d %d %s", purpose, form.Iterations, form.Salt, login)
	return mac.Sum(nil)
}
