package turnd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"

	"mailbag/meter"
	"mailbag/meter/login"
)

// Admit is what a [Server]'s log-ins have to ask (login.Config.Admit): the networks that an atrn account has
// restrict its log-in to them.
func Admit(who login.Identity, client netip.Addr) error {
	if a := who.Account; a.Mode == meter.ATRN && len(a.Networks) > 0 && !a.Within(client) {
		return fmt.Errorf("%s is not in its networks", client)
	}
	return nil
}

// auth answers AUTH with the whole exchange (RFC 4954, section 4).
func (c *session) auth(args string) reply {
	switch {
	case c.identity != nil:
		return say(503, "5.5.1", "You are logged in already")
	case !c.extended:
		return sayEHLO
	}
	mechanism, initial, wellFormed := parseAuth(args)
	if !wellFormed {
		return say(501, "5.5.4", "AUTH takes a mechanism and an initial response")
	}
	exchange, err := c.server.cfg.Logins.Start(c.server.door.Context(), c.peer(), mechanism)
	if err != nil {
		return authFailure(err)
	}
	var response []byte // nil: none was given
	switch initial {
	case "":
	case "=": // empty
		response = []byte{}
	default:
		if response, err = decodeResponse([]byte(initial)); err != nil {
			return badBase64
		}
	}
	for {
		challenge, done, err := exchange.Next(response)
		switch {
		case err != nil:
			return authFailure(err)
		case done:
			who := exchange.Identity()
			c.identity = &who
			c.server.door.Settle(c)
			c.log.Info("logged in", "account", who.Account.Name)
			return say(235, "2.7.0", "You are logged in")
		}
		c.send("AUTH", say(334, "", "%s", base64.StdEncoding.EncodeToString(challenge)))
		line, err := c.readLine()
		switch {
		case err != nil:
			return c.farewell(err)
		case line == nil:
			return say(500, "5.5.6", "The line is longer than %d octets", maxLine)
		case string(line) == "*":
			return say(501, "5.7.0", "The log-in was cancelled")
		}
		if response, err = decodeResponse(line); err != nil {
			return badBase64
		}
	}
}

var badBase64 = say(501, "5.5.2", "This is not base64")

// decodeResponse reads a response, which is not nil even when it is empty.
func decodeResponse(text []byte) ([]byte, error) {
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	return b[:n], err
}

// authFailure is the reply to a log-in that failed (RFC 4954, sections 4 and 6).
func authFailure(err error) reply {
	switch {
	case errors.Is(err, login.ErrUnknownMechanism):
		return say(504, "5.5.4", "The mechanism is not offered here")
	case errors.Is(err, login.ErrEncryptionRequired):
		return say(538, "5.7.11", "The mechanism needs STARTTLS first")
	case errors.Is(err, login.ErrThrottled):
		return bye("4.7.0", "Too many log-ins failed, please come again later")
	case errors.Is(err, login.ErrSuspended):
		return suspended
	case errors.Is(err, login.ErrNotAllowed):
		return say(450, "4.7.1", "This account may not log in from your address")
	case errors.Is(err, login.ErrMalformed):
		return say(501, "5.5.2", "This does not follow the mechanism")
	case errors.Is(err, login.ErrFailed):
		return say(535, "5.7.8", "The user name or the password is wrong")
	}
	return say(454, "4.7.0", "Log-ins cannot be checked now, please try again later")
}
