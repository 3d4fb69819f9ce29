package login

import (
	"context"
	"slices"
	"unicode/utf8"

	"github.com/emersion/go-sasl"

	"mailbag/meter"
)

// maxStep bounds one response of a client, in octets and without base64. No mechanism here needs a quarter of it.
const maxStep = 4 << 10

// A mechanism is one way to log in by SASL.
type mechanism struct {
	name    string
	plain   bool // the password is sent as it is
	offered func(*Checker, Peer) bool
	server  func(*Exchange) sasl.Server
}

// mechanisms are in the order in which they are offered.
var mechanisms = []mechanism{
	{"SCRAM-SHA-256-PLUS", false, bindable, newBoundSCRAM},
	{"SCRAM-SHA-256", false, always, newSCRAM},
	{"CRAM-MD5", false, someCRAM, newCRAM},
	{"PLAIN", true, always, newPlain},
	{"LOGIN", true, always, newLogin},
}

func always(*Checker, Peer) bool { return true }

func bindable(_ *Checker, p Peer) bool {
	_, ok := p.binding()
	return ok
}

// someCRAM reports whether any account that logs in here keeps what CRAM-MD5 needs. Clients often prefer
// it to a mechanism that would have worked.
func someCRAM(c *Checker, _ Peer) bool {
	d := c.cfg.Accounts.Directory()
	if d == nil {
		return false
	}
	modes := c.cfg.Modes
	if modes == nil {
		modes = meter.Modes
	}
	return slices.ContainsFunc(modes, d.KeepsCRAMMD5)
}

// An Exchange is one log-in by SASL. It belongs to one goroutine.
type Exchange struct {
	c         *Checker
	ctx       context.Context
	peer      Peer
	mechanism string
	server    sasl.Server
	over      bool
	identity  Identity
}

var _ sasl.Server = (*Exchange)(nil)

// Next takes the client's response and returns the next challenge, or that the exchange is done. The first
// response is nil where the client gave no initial one; any other is not nil, even when it is empty.
// Next takes as long as [Guard] wants it to. After an error the exchange is over. Errors are
// [ErrFailed], [ErrMalformed], [ErrUnavailable], [ErrThrottled], [ErrSuspended] and [ErrNotAllowed].
func (x *Exchange) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case x.over:
		return nil, true, ErrMalformed
	case len(response) > maxStep, !utf8.Valid(response):
		err = x.malformed("")
	default:
		challenge, done, err = x.server.Next(response)
	}
	x.over = done || err != nil
	if err != nil {
		x.identity = Identity{}
		return nil, true, err
	}
	return challenge, done, nil
}

// Identity is who logged in, once Next said that it is done; before that, nobody.
func (x *Exchange) Identity() Identity {
	if !x.over {
		return Identity{}
	}
	return x.identity
}

func (x *Exchange) attempt(name string) (*attempt, error) {
	return x.c.attempt(x.ctx, x.peer, x.mechanism, name)
}

// malformed is the end of an exchange that broke the rules. It counts as a failure of the client's
// address; the log-in that it named is not to blame.
func (x *Exchange) malformed(name string) error {
	a := &attempt{c: x.c, peer: x.peer, mechanism: x.mechanism, name: name}
	return a.fail(x.ctx, malformed, ErrMalformed)
}

// settle ends an attempt; who passed it is the exchange's identity.
func (x *Exchange) settle(a *attempt, right bool, why reason) (err error) {
	x.identity, err = a.finish(x.ctx, right, why)
	return err
}
