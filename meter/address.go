package meter

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// An Address is an envelope address, user@domain.
type Address struct {
	Local  string // as given, without quotes
	Domain string // normalized
}

// ParseAddress reads user@domain with an RFC 5321 local part (section 4.1.2: a dot-string or a
// quoted string), which may be UTF-8 (RFC 6531, section 3.3), and a domain name in any spelling that
// [NormalizeDomain] takes.
func ParseAddress(s string) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%q is not an address: it has no @", s)
	}
	local, err := unquoteLocal(s[:at])
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
// because a customer's list that says Info@ means info@ as well.
func (a Address) Key() string { return strings.ToLower(a.Local) + "@" + a.Domain }

// String is the address as SMTP writes it, quoted where it must be.
func (a Address) String() string {
	if isDotString(a.Local) {
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
	case isDotString(s):
		return s, nil
	case len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"':
		return "", errors.New("its local part must be quoted")
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
		if c < ' ' || c == 0x7f {
			return "", errors.New("its local part has a control character")
		}
		local.WriteByte(c)
		quoted = quoted[1:]
	}
	return local.String(), nil
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
