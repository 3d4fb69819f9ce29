package login

import (
	"strings"

	"github.com/emersion/go-sasl"
)

// newPlain is PLAIN (RFC 4616).
func newPlain(x *Exchange) sasl.Server { return &plain{x} }

type plain struct{ x *Exchange }

func (p *plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return []byte{}, false, nil
	}
	parts := strings.Split(string(response), "\x00")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return nil, true, p.x.malformed("")
	}
	// Nobody may act for another: the identity to act as is none or the one that logs in.
	authzid, name, password := parts[0], parts[1], parts[2]
	return nil, true, p.x.password(name, password, authzid == "" || authzid == name)
}

// newLogin is LOGIN, which no RFC describes and many clients still use; its challenges are those that
// they wait for (draft-murchison-sasl-login).
func newLogin(x *Exchange) sasl.Server { return &loginServer{x: x} }

type loginServer struct {
	x     *Exchange
	asked bool // for the name
	named bool
	name  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case !l.asked && response == nil:
		l.asked = true
		return []byte("Username:"), false, nil
	case !l.named:
		l.asked, l.named, l.name = true, true, string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.x.password(l.name, string(response), true)
}

// password checks a password; allowed says whether the client asks to be nobody but who it is.
func (x *Exchange) password(name, password string, allowed bool) error {
	a, err := x.attempt(name)
	if err != nil {
		return err
	}
	right, err := a.matches(x.ctx, password)
	switch {
	case err != nil:
		return err
	case right && !allowed:
		return x.settle(a, false, otherIdentity)
	}
	return x.settle(a, right, wrongPassword)
}
