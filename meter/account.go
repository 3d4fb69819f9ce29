package meter

import (
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// A Mode is what happens to the mail of an account.
type Mode string

const (
	Backup Mode = "backup" // relayed to the customer's server at the MTA's retry intervals
	ETRN   Mode = "etrn"   // held until an ETRN (RFC 1985) from one of the account's networks
	ATRN   Mode = "atrn"   // held until an authenticated ATRN (RFC 2645)
	POP3   Mode = "pop3"   // put into a Maildir at once
)

// Modes lists every mode, in the order in which help texts show them.
var Modes = []Mode{Backup, ETRN, ATRN, POP3}

// Held reports whether mail of this mode waits for the customer to ask for it.
func (m Mode) Held() bool { return m == ETRN || m == ATRN }

// DefaultHold is how long mail of this mode may wait when the account does not say so itself.
func (m Mode) DefaultHold() time.Duration {
	if m.Held() {
		return 30 * 24 * time.Hour
	}
	return 5 * 24 * time.Hour
}

// MaxHold is the longest hold time, Postfix's own maximum for maximal_queue_lifetime.
const MaxHold = 100 * 24 * time.Hour

// MaxLimit is the largest number of messages, octets or tiers that a limit can have: what programs that read JSON
// keep exactly, and far from where sums overflow.
const MaxLimit = 1 << 53

// OnLimit is what happens to mail above an account's monthly limit.
type OnLimit string

const (
	Bill   OnLimit = "bill"   // accepted, and billed by the tier
	Defer  OnLimit = "defer"  // 452 4.2.2 until the month turns or the limit is raised
	Reject OnLimit = "reject" // 552 5.2.2
)

// RecipientCheck says which envelope recipients of an account's domains are accepted.
type RecipientCheck string

const (
	AnyRecipient      RecipientCheck = "any"    // every one
	ListedRecipient   RecipientCheck = "list"   // those in the account's recipient list
	VerifiedRecipient RecipientCheck = "verify" // those the customer's server accepts (backup accounts only)
)

// A TLSLevel is what the connection to an account's host has to be, for mail to be delivered there.
type TLSLevel string

const (
	TLSOpportunistic TLSLevel = "opportunistic" // encrypted where that comes about, else in the clear (RFC 7435)
	TLSRequire       TLSLevel = "require"       // encrypted, whatever certificate is shown
	TLSVerify        TLSLevel = "verify"        // encrypted, with a certificate that the system trusts and that names the host
)

// TLSLevels lists every level, the weakest first.
var TLSLevels = []TLSLevel{TLSOpportunistic, TLSRequire, TLSVerify}

// Mandatory reports whether nothing may be delivered in the clear.
func (l TLSLevel) Mandatory() bool { return l == TLSRequire || l == TLSVerify }

// Copies says how a catch-all stores a message with several envelope recipients.
type Copies string

const (
	PerRecipient Copies = "per-recipient"
	SingleCopy   Copies = "single"
)

// An Account is one customer. Its zero optional fields stand for the defaults of the settings file.
type Account struct {
	ID         int64          `json:"-"`
	Name       string         `json:"name"`
	Customer   string         `json:"customer,omitempty"` // what the operator's books call it
	Note       string         `json:"note,omitempty"`     // for the operator's eyes
	Mode       Mode           `json:"mode"`
	Suspended  bool           `json:"suspended"`
	Domains    []string       `json:"domains"`            // A-labels, lower case, sorted
	Host       string         `json:"host,omitempty"`     // host or host:port of the customer's server; empty: by MX
	TLS        TLSLevel       `json:"tls"`                // of the connection to Host; empty: opportunistic
	Networks   []netip.Prefix `json:"networks,omitempty"` // where ETRN, ATRN and AUTH may come from
	Recipients RecipientCheck `json:"recipients"`
	Terms                     // its own; see InForce
	Plan       string         `json:"plan,omitempty"`    // the name of its price plan; empty: none
	Hold       time.Duration  `json:"hold,omitempty"`    // 0: the mode's default
	Contact    string         `json:"contact,omitempty"` // where notices go
	Copies     Copies         `json:"copies"`
	CatchAll   bool           `json:"catch_all"`
	Quota      int64          `json:"quota,omitempty"` // stored octets, pop3 only; 0: no bound
	CRAMMD5    bool           `json:"cram_md5"`        // keep CRAM-MD5 state beside the SCRAM verifier
	Created    time.Time      `json:"created"`

	PlanTerms *Terms `json:"-"` // of its plan, in a Directory's accounts; nil: it has none
}

// InForce are the account's own terms, and those of its plan where it has none. What is zero is as the settings say.
func (a *Account) InForce() Terms {
	if a.PlanTerms == nil {
		return a.Terms
	}
	return a.Terms.Or(*a.PlanTerms)
}

// HoldTime is how long mail of the account may wait before it goes back to its sender.
func (a *Account) HoldTime() time.Duration {
	if a.Hold > 0 {
		return a.Hold
	}
	return a.Mode.DefaultHold()
}

// Held reports whether the account's mail waits in the MTA's queue for a turn: by its mode, or
// because the account is suspended.
func (a *Account) Held() bool { return a.Suspended || a.Mode.Held() }

// among are those of the domains that the account has.
func (a *Account) among(domains []string) []string {
	own := []string{}
	for _, domain := range domains {
		if _, ours := slices.BinarySearch(a.Domains, domain); ours {
			own = append(own, domain)
		}
	}
	return own
}

var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// ValidName reports whether s can name an account: [a-z0-9][a-z0-9-]{0,31}.
func ValidName(s string) bool { return accountName.MatchString(s) }
