package login

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/emersion/go-sasl"
)

// newCRAM is CRAM-MD5 (RFC 2195).
func newCRAM(x *Exchange) sasl.Server { return &cram{x: x} }

type cram struct {
	x         *Exchange
	challenge []byte // nil: not sent yet
}

func (c *cram) Next(response []byte) (challenge []byte, done bool, err error) {
	if c.challenge == nil {
		if response != nil {
			return nil, true, c.x.malformed("") // RFC 4954, section 4: here the server speaks first
		}
		// RFC 2195, section 2: like a message's ID, with a random part and a time stamp.
		c.challenge = fmt.Appendf(nil, "<%s.%d@%s>", rand.Text(), c.x.c.cfg.Now().Unix(), c.x.c.cfg.Hostname)
		return c.challenge, false, nil
	}
	name, digest, ok := parseCRAM(response)
	if !ok {
		return nil, true, c.x.malformed(name)
	}
	a, err := c.x.attempt(name)
	if err != nil {
		return nil, true, err
	}
	right, why := a.answers(c.challenge, digest)
	return nil, true, c.x.settle(a, right, why)
}

// parseCRAM takes a response apart: the user's name, which may have spaces, a space, and the digest in
// hexadecimal digits (RFC 2195, section 2).
func parseCRAM(response []byte) (name string, digest []byte, ok bool) {
	space := bytes.LastIndexByte(response, ' ')
	if space < 0 {
		return "", nil, false
	}
	name = string(response[:space])
	digest, err := hex.DecodeString(string(response[space+1:]))
	return name, digest, err == nil && len(digest) == md5.Size && name != ""
}
