package meter

import (
	"testing"
	"time"
)

func TestDemandsAreThoseOfAccountsInForce(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	l := newTestLedger(t, Options{})
	check := func(when string, want Demands) {
		t.Helper()
		if got, err := l.Demands(t.Context()); err != nil || got != want {
			t.Errorf("%s the demands are %+v, %v; want %+v", when, got, err, want)
		}
	}
	check("without accounts", Demands{})
	mustAdd(t, l, Account{Name: "relayed", Mode: Backup, TLS: TLSRequire, Host: "mail.example", Hold: 2 * day})
	check("of a backup account", Demands{LongestHold: 2 * day, RequireTLS: true})
	mustAdd(t, l, Account{Name: "plain", Mode: Backup, Recipients: VerifiedRecipient})
	check("with one that has its hold time from its mode", Demands{LongestHold: 5 * day, RequireTLS: true, Verify: true})
	mustAdd(t, l, Account{Name: "held", Mode: ATRN, TLS: TLSVerify, Host: "mail.example", Hold: 40 * day})
	check("with one whose mail leaves by turns", Demands{LongestHold: 40 * day, RequireTLS: true, Verify: true})
	for _, name := range []string{"relayed", "held"} {
		if err := l.DeleteAccount(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	mustAdd(t, l, Account{Name: "verified", Mode: Backup, TLS: TLSVerify, Host: "mail.example"})
	check("after two were deleted", Demands{LongestHold: 5 * day, Verify: true, VerifyTLS: true})
}
