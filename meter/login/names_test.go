package login

import (
	"testing"

	"mailbag/meter"
)

func TestNamesOfAccountsAndMailboxes(t *testing.T) {
	t.Parallel()
	g := newGate(t, MailboxNames)
	d := g.directory
	if _, _, err := g.ledger.EditAccount(t.Context(), "boxes", "account set", func(a *meter.Account) error { a.CatchAll = false; return nil }); err != nil {
		t.Fatal(err)
	}
	noCatchAll, err := g.ledger.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		how                     string
		names                   Names
		d                       *meter.Directory
		name                    string
		login, account, mailbox string // account: empty where the name is nobody's
	}{
		{"AccountNames", AccountNames, d, "acme", "acme", "acme", ""},
		{"AccountNames", AccountNames, d, "ACME", "acme", "acme", ""},
		{"AccountNames", AccountNames, d, "@acme.example", "@acme.example", "", ""},
		{"AccountNames", AccountNames, d, "", "", "", ""},
		{"MailboxNames", MailboxNames, d, "Boxes", "boxes", "boxes", ""},
		{"MailboxNames", MailboxNames, d, "@Boxes.Example", "boxes", "boxes", ""},
		{"MailboxNames", MailboxNames, d, "%boxes.example", "boxes", "boxes", ""},
		{"MailboxNames", MailboxNames, d, "acme", "acme", "acme", ""}, // its mode is for Admit to judge
		{"MailboxNames", MailboxNames, d, "kim@boxes.example", "kim@boxes.example", "boxes", "kim@boxes.example"},
		{"MailboxNames", MailboxNames, d, "Kim%BOXES.example", "kim@boxes.example", "boxes", "kim@boxes.example"},
		{"MailboxNames", MailboxNames, d, `"kim"@boxes.example.`, "kim@boxes.example", "boxes", "kim@boxes.example"},
		{"MailboxNames", MailboxNames, d, "lee@boxes.example", "lee@boxes.example", "", ""},
		{"MailboxNames", MailboxNames, d, "kim@acme.example", "kim@acme.example", "", ""},
		{"MailboxNames", MailboxNames, d, "kim%boxes.example@acme.example", "kim%boxes.example@acme.example", "", ""},
		{"MailboxNames", MailboxNames, d, "@", "@", "", ""},
		{"MailboxNames", MailboxNames, d, "", "", "", ""},
		{"without a catch-all", MailboxNames, noCatchAll, "boxes", "boxes", "", ""},
		{"without a catch-all", MailboxNames, noCatchAll, "@boxes.example", "boxes", "", ""},
		{"without a catch-all", MailboxNames, noCatchAll, "kim@boxes.example", "kim@boxes.example", "boxes", "kim@boxes.example"},
	} {
		id, known := c.names(c.d, c.name)
		if known != (c.account != "") || id.Login != c.login || known && (id.Account.Name != c.account || id.Mailbox != c.mailbox) {
			t.Errorf("%s: %q is %+v, %v", c.how, c.name, id, known)
		}
	}
}
