package login

import (
	"bytes"
	"fmt"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// newSCRAM is SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding.
func newSCRAM(x *Exchange) sasl.Server { return scramServer(x, false) }

// newBoundSCRAM is SCRAM-SHA-256-PLUS.
func newBoundSCRAM(x *Exchange) sasl.Server { return scramServer(x, true) }

func scramServer(x *Exchange, bound bool) sasl.Server {
	s := &scramExchange{x: x, bound: bound}
	server, err := scram.SHA256.NewServer(s.credentials)
	if err != nil {
		panic(err) // it has none to return
	}
	// RFC 5802, section 6: a client that can bind and was not told that we can ("y") is being deceived
	// if we can.
	binding, _ := x.peer.binding()
	if bound {
		s.talk = server.NewConversationWithChannelBindingRequired(binding)
	} else {
		s.talk = server.NewConversationWithChannelBinding(binding)
	}
	return s
}

type scramExchange struct {
	x       *Exchange
	bound   bool
	talk    *scram.ServerConversation
	attempt *attempt
	refused error // why there is no attempt
}

// credentials is asked by the conversation when it has read the user's name.
func (s *scramExchange) credentials(name string) (scram.StoredCredentials, error) {
	s.attempt, s.refused = s.x.attempt(name)
	if s.refused != nil {
		return scram.StoredCredentials{}, s.refused
	}
	v := s.attempt.verifier
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations},
		StoredKey:  v.StoredKey,
		ServerKey:  v.ServerKey,
	}, nil
}

func (s *scramExchange) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case s.talk.Valid():
		// The client has seen our proof and has nothing to add.
		if len(response) > 0 {
			return nil, true, s.x.malformed(s.attempt.name)
		}
		return nil, true, nil
	case s.attempt != nil:
		return s.final(response)
	case response == nil:
		return []byte{}, false, nil
	}
	return s.first(response)
}

// first reads the client's first message (RFC 5802, section 7) and answers with salt and nonce.
func (s *scramExchange) first(response []byte) (challenge []byte, done bool, err error) {
	// RFC 5802, section 6: "p" goes with the mechanism's PLUS form only.
	if !s.bound && bytes.HasPrefix(response, []byte("p")) {
		return nil, true, s.x.malformed("")
	}
	message, err := s.talk.Step(string(response))
	switch {
	case s.refused != nil:
		return nil, true, s.refused
	case err != nil && message == scram.ErrServerDoesSupportChannelBinding:
		return nil, true, s.fail(wrongChannel)
	case err != nil:
		return nil, true, s.x.malformed("")
	}
	return []byte(message), false, nil
}

// final checks the client's proof and answers with ours.
func (s *scramExchange) final(response []byte) (challenge []byte, done bool, err error) {
	message, err := s.talk.Step(string(response))
	right, why := err == nil, wrongPassword
	switch {
	case message == "":
		return nil, true, s.x.malformed(s.attempt.name)
	case message == scram.ErrChannelBindingsDontMatch:
		why = wrongChannel
	case right && s.talk.AuthzID() != "" && s.talk.AuthzID() != s.talk.Username():
		right, why = false, otherIdentity
	}
	if err := s.x.settle(s.attempt, right, why); err != nil {
		return nil, true, err
	}
	return []byte(message), false, nil
}

// fail is the end of an exchange before anybody was looked up.
func (s *scramExchange) fail(why reason) error {
	a := &attempt{c: s.x.c, peer: s.x.peer, mechanism: s.x.mechanism, name: s.talk.Username()}
	return a.fail(s.x.ctx, why, fmt.Errorf("%w: it is bound to another connection", ErrFailed))
}
