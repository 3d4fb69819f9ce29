package login

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailbag/meter"
)

const (
	maxName   = 512 // octets; the longest address that there can be has 318
	maxLogged = 128 // octets of a name in the log
)

// A reason is why a log-in failed, as the log gives it.
type reason string

const (
	unknownLogin  reason = "unknown-login"
	wrongPassword reason = "wrong-password"
	noCRAM        reason = "no-cram-md5"
	wrongChannel  reason = "channel-binding"
	otherIdentity reason = "authorization-identity"
	malformed     reason = "malformed"
	suspended     reason = "suspended"
	notAllowed    reason = "not-allowed"
)

// An attempt is one log-in from the moment at which its name is known.
type attempt struct {
	c         *Checker
	peer      Peer
	mechanism string
	name      string // as the client gave it
	identity  Identity
	known     bool            // there is such a log-in here
	verifier  *meter.Verifier // its own, or the decoy
	decoy     *meter.Verifier
}

// attempt finds out who the name is and what there is to check it by.
func (c *Checker) attempt(ctx context.Context, p Peer, mechanism, name string) (*attempt, error) {
	d := c.cfg.Accounts.Directory()
	if d == nil {
		return nil, c.unavailable(mechanism, errors.New("the ledger was not read yet"))
	}
	a := &attempt{c: c, peer: p, mechanism: mechanism, name: name}
	if len(name) <= maxName {
		a.identity, a.known = c.cfg.Names(d, name)
	}
	login := a.identity.Login
	if err := c.cfg.Guard.begin(p.Addr, login); err != nil {
		c.metrics.count(mechanism, resultThrottled)
		return nil, err
	}
	// A log-in that nobody has is looked up as well, because that takes time.
	v, err := c.cfg.Verifiers.Verifier(ctx, login)
	if err != nil {
		return nil, c.unavailable(mechanism, err)
	}
	// One that exists in another service alone shows its own verifier as there: a decoy would differ from it.
	a.verifier, a.decoy = v, decoy(d, login)
	if v == nil {
		a.verifier, a.known = a.decoy, false
	}
	return a, nil
}

// matches derives the keys from a password, of which only so many at once.
func (a *attempt) matches(ctx context.Context, password string) (bool, error) {
	select {
	case a.c.derive <- struct{}{}:
		defer func() { <-a.c.derive }()
		return matches(a.verifier, password), nil
	case <-ctx.Done():
		return false, a.c.unavailable(a.mechanism, ctx.Err())
	}
}

// answers checks CRAM-MD5's digest. Where the state for it was not kept, the decoy's is used.
func (a *attempt) answers(challenge, digest []byte) (right bool, why reason) {
	if a.verifier.CRAMMD5 == nil {
		answersCRAM(a.decoy, challenge, digest)
		return false, noCRAM
	}
	return answersCRAM(a.verifier, challenge, digest), wrongPassword
}

// finish answers the client, when the guard lets it: right says whether the password was, why is the
// reason if it was not.
func (a *attempt) finish(ctx context.Context, right bool, why reason) (Identity, error) {
	if !a.known {
		right = false
		if why == wrongPassword || why == noCRAM {
			why = unknownLogin
		}
	}
	if !right {
		return Identity{}, a.fail(ctx, why, ErrFailed)
	}
	if err := a.wait(ctx, true); err != nil {
		return Identity{}, err
	}
	if a.identity.Account.Suspended {
		return Identity{}, a.refuse(suspended, ErrSuspended)
	}
	if err := a.c.cfg.Admit(a.identity, a.peer.Addr.Unmap()); err != nil {
		return Identity{}, a.refuse(notAllowed, fmt.Errorf("%w: %w", ErrNotAllowed, err))
	}
	a.c.metrics.count(a.mechanism, resultOK)
	return a.identity, nil
}

// fail logs before it waits: who bans clients by the log need not wait, and a client that goes away
// meanwhile is in it.
func (a *attempt) fail(ctx context.Context, why reason, err error) error {
	a.log("log-in failed", why)
	a.c.metrics.count(a.mechanism, resultFailed)
	if err := a.wait(ctx, false); err != nil {
		return err
	}
	return err
}

// wait has the guard delay the answer.
func (a *attempt) wait(ctx context.Context, right bool) error {
	err := a.c.cfg.Guard.end(ctx, a.peer.Addr, a.identity.Login, right)
	switch {
	case errors.Is(err, ErrThrottled):
		a.c.metrics.count(a.mechanism, resultThrottled)
	case err != nil:
		err = a.c.unavailable(a.mechanism, err)
	}
	return err
}

// refuse turns away who knew the password.
func (a *attempt) refuse(why reason, err error) error {
	a.log("log-in refused", why, "error", err)
	a.c.metrics.count(a.mechanism, resultRefused)
	return err
}

// log writes the line that the package comment describes.
func (a *attempt) log(message string, why reason, more ...any) {
	name := a.name
	if len(name) > maxLogged {
		name = strings.ToValidUTF8(name[:maxLogged], "")
	}
	a.c.cfg.Logger.Warn(message, append([]any{"service", a.c.cfg.Service, "client", a.peer.Addr.Unmap(), "user", name,
		"mechanism", a.mechanism, "reason", string(why)}, more...)...)
}

func (c *Checker) unavailable(mechanism string, err error) error {
	c.metrics.count(mechanism, resultUnavailable)
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
