package meter

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// An Address is an envelope address, user@domain.
type Address struct {
	Local  string // without quotes
	Domain string // normalized
}

// ParseAddress reads user@domain with an RFC 5321 local part (section 4.1.2: a dot-string or a
// quoted string), which may be UTF-8 (RFC 6531, section 3.3), and a domain name in any spelling that
// [NormalizeDomain] takes. Letters with marks are composed: what looks the same is the same (RFC 6532, section 3.1).
func ParseAddress(s string) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%q is not an address: it has no @", s)
	}
	local, err := unquoteLocal(norm.NFC.String(s[:at]))
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: %w", s, err)
	}
	domain, err := NormalizeDomain(s[at+1:])
	if err != nil {
		return Address{}, fmt.Errorf("%q is not an address: %w", s, err)
	}
	return Address{Local: local, Domain: domain}, nil
}

// Key is the form in which mailboxes and listed recipients are stored and compared: all lower case,
// because a customer's list that says Info@ means info@ as well, composed, and without quotes. It is not for people:
// what they read has to be what they can write.
func (a Address) Key() string { return oneSpelling(a.Local) + "@" + a.Domain }

// KeyAddress is the address of a [Address.Key].
func KeyAddress(key string) Address {
	at := strings.LastIndexByte(key, '@')
	return Address{Local: key[:max(at, 0)], Domain: key[at+1:]}
}

// Written is a key as SMTP writes the address. The other log-ins, names of accounts, are written as they are.
func Written(key string) string {
	if !strings.Contains(key, "@") {
		return key
	}
	return KeyAddress(key).String()
}

// oneSpelling is what two texts have in common that differ in case or in how letters with marks are encoded alone.
func oneSpelling(s string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(s)))
}

// String is the address as SMTP writes it, quoted where it must be, and where it would be taken for an option on a
// command line, or for a remark, white space or a byte order mark in a file of addresses.
func (a Address) String() string {
	first, _ := utf8.DecodeRuneInString(a.Local)
	if isDotString(a.Local) && first != '-' && first != '#' && first != '\ufeff' && !unicode.IsSpace(first) {
		return a.Local + "@" + a.Domain
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.Local) + `"@` + a.Domain
}

// unquoteLocal checks a local part and takes its quotes and backslashes away.
func unquoteLocal(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("nothing stands before the @")
	case len(s) > 64: // RFC 5321, section 4.5.3.1.1
		return "", errors.New("its local part is longer than 64 octets")
	case !utf8.ValidString(s):
		return "", errors.New("its local part is not UTF-8")
	case strings.ContainsFunc(s, unseen):
		return "", errors.New("its local part has a control character")
	case isDotString(s):
		return s, nil
	case len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"':
		return "", fmt.Errorf("its local part has to be quoted, as in %s", Address{Local: "two words", Domain: "acme.example"})
	}
	var local strings.Builder
	for quoted := s[1 : len(s)-1]; quoted != ""; {
		c := quoted[0]
		if c == '\\' && len(quoted) > 1 {
			quoted = quoted[1:]
			c = quoted[0]
		} else if c == '"' || c == '\\' {
			return "", fmt.Errorf("a %c in its local part lacks a backslash", c)
		}
		local.WriteByte(c)
		quoted = quoted[1:]
	}
	return local.String(), nil
}

// unseen are the characters that a reader would not see, or that would have him see something else: control characters,
// ends of lines, and those that turn the direction of what follows.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// isDotString reports whether s is RFC 5321's Dot-string, with RFC 6531's UTF-8.
func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := 0; i < len(atom); i++ {
			c := atom[i]
			if c <= ' ' || c == 0x7f || strings.IndexByte(`"(),:;<>@[\]`, c) >= 0 {
				return false
			}
		}
	}
	return true
}
