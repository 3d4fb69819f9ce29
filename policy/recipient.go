package policy

import (
	"strings"

	"golang.org/x/text/cases"

	"mailbag/meter"
)

// A recipient is an envelope recipient as the MTA will resolve it.
type recipient struct {
	account *meter.Account // whose it is; nil when it is nobody's here
	address meter.Address  // set with account
	refused bool           // it leads to a domain of ours on a way of its own: not to be accepted
}

// readRecipient reads an address in internal form, without quotes, as policy services get it. Exim takes the domain as it
// stands, and nothing in the local part for a way; Postfix does more.
//
// Postfix (trivial-rewrite's resolve.c) takes what follows the last @ as the domain, drops one
// trailing dot, and, while the domain is its own or missing, looks into the local part for further
// @, % and !, quoted or not. Before that it tokenizes anew: white space, quotes and backslashes
// vanish even from a domain that had been quoted once. So an address with a plain domain is that
// domain's; and one whose domain is not ours, but which has a domain of ours in a place where any
// number of those steps could bring it to the end, is refused. Nobody's mail depends on such an
// address: it is what relay tests send.
func readRecipient(d *meter.Directory, s string) recipient {
	at := strings.LastIndexByte(s, '@')
	if at >= 0 {
		if account, domain := domainOf(d, s[at+1:]); account != nil {
			return recipient{account: account, address: meter.Address{Local: s[:at], Domain: domain}, refused: at == 0}
		}
		if at > 0 && plainLocal(s[:at]) && plainDomain(s[at+1:]) {
			return recipient{}
		}
	}
	squeezed := squeeze(s)
	return recipient{refused: leadsToUs(d, s) || leadsToUs(d, squeezed) || leadsToUs(d, squeeze(withoutComments(s)))}
}

// domainOf returns the account that has the domain, in whatever spelling, and the domain as we write
// it. Postfix folds the case before it looks a domain up, and so has straße.example for strasse.example.
func domainOf(d *meter.Directory, domain string) (*meter.Account, string) {
	if a := d.Domain(domain); a != nil {
		return a, domain
	}
	normal, err := meter.NormalizeDomain(cases.Fold().String(domain))
	if err != nil {
		return nil, ""
	}
	return d.Domain(normal), normal
}

// plainLocal reports whether a local part has nothing in it that Postfix could take for more.
func plainLocal(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`@%!"\()<>[],;:|`, c) >= 0 {
			return false
		}
	}
	return true
}

// plainDomain reports whether a domain is spelled with the characters of names alone.
func plainDomain(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c < 0x80 {
			return false
		}
	}
	return s != "" && s[len(s)-1] != '.'
}

// leadsToUs reports whether s has a domain of ours behind or before a routing operator.
func leadsToUs(d *meter.Directory, s string) bool {
	const operators = "@%!()<>[],;:|"
	for first := true; ; first = false {
		end := strings.IndexAny(s, operators)
		piece := s
		if end >= 0 {
			piece = s[:end]
		}
		// What stands first is a local part, unless a ! follows it (domain!user).
		if !first || end >= 0 && s[end] == '!' {
			if a, _ := domainOf(d, strings.Trim(piece, ".")); a != nil {
				return true
			}
		}
		if end < 0 {
			return false
		}
		s = s[end+1:]
	}
}

// squeeze takes away what vanishes between Postfix's tokens.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, s)
}

// withoutComments takes away RFC 822 comments, (...), one in another included.
func withoutComments(s string) string {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			if depth == 0 {
				b.WriteString(s[i : i+2])
			}
			i++
		case s[i] == '(':
			depth++
		case s[i] == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
