package popd

import (
	"errors"
	"strings"

	"mailbag/meter"
)

// envelope is what a message is given on its way into a Maildir, so that who fetches it knows for whom it was:
// the header may name somebody else, or nobody. The lines stand first, and so before any of the same
// name that the sender put there.
func envelope(from string, to []meter.Address) []byte {
	b := []byte("Return-Path: <" + from + ">\r\n")
	for _, a := range to {
		b = append(b, "Delivered-To: "+a.String()+"\r\n"...)
	}
	b = append(b, "X-Envelope-To: "...)
	for i, a := range to {
		if i > 0 {
			b = append(b, ",\r\n\t"...)
		}
		b = append(b, a.String()...)
	}
	return append(b, "\r\n"...)
}

var errAddress = errors.New("the address cannot be written into a header")

// readAddress reads an envelope address as go-smtp gives it: the local part without its quotes. An octet that
// would end a header line or means nothing in it is refused, wherever it is.
func readAddress(s string) (meter.Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at <= 0 {
		return meter.Address{}, errAddress
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return meter.Address{}, errAddress
		}
	}
	return meter.Address{Local: s[:at], Domain: s[at+1:]}, nil
}
