package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) accountCommand() *cobra.Command {
	return group("account", "Add, show, change and delete accounts",
		`An account is one customer, with a mode, domains and, where it fetches its mail, a log-in.
Names are 1 to 32 of a-z, 0-9 and hyphen.`,
		c.accountAddCommand(), c.accountListCommand(), c.accountShowCommand(), c.accountSetCommand(),
		c.suspendCommand(), c.resumeCommand(), c.accountDeleteCommand(), c.historyCommand(),
		c.sheetCommand(), c.accountExportCommand(), c.accountImportCommand())
}

// tlsMeaning is for the help texts that have --tls.
const tlsMeaning = `With --tls opportunistic, the default, mail goes to the customer's server by STARTTLS where that is offered
and works, else in the clear (RFC 7435); a backup account's does as the MTA says, Postfix by smtp_tls_security_level.
With require nothing goes in the clear. With verify the certificate must also be valid by the system's authorities and name
the account's host, or, for a backup account without one, the server in the MX record, which is as sure as the DNS.
What cannot be delivered so waits, and goes back to its sender after the hold time.`

func (c *console) accountAddCommand() *cobra.Command {
	var given meter.Account
	var domains, networks []string
	var flags passwordFlags
	var forced bool
	cmd := &cobra.Command{
		Use:   "add NAME --mode MODE --domain DOMAIN...",
		Short: "Add an account",
		Long: `Add an account with its domains. Mail for them is accepted within 15 seconds.

An atrn account, and a pop3 account with a catch-all, has a log-in of the account's name; its
password is asked for at the terminal unless a flag gives another way. The ledger is made where it
is missing.

` + termsMeaning + `

` + tlsMeaning,
		Example: `  mailbag account add acme --mode backup --domain acme.example --host mail.acme.example --recipients verify
  mailbag account add bolt --mode etrn --domain bolt.example --host 192.0.2.7:2525 --network 192.0.2.0/24
  mailbag account add corp --mode atrn --domain corp.example --domain corp.test --generate-password
  mailbag account add dent --mode pop3 --domain dent.example --catch-all no --bytes 5GB --on-limit defer
  mailbag account add ford --mode backup --domain ford.example --plan gold --customer K-4711`,
		Args: arguments("NAME"),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringArrayVar(&domains, "domain", nil, "`DOMAIN` of the account; give it again for each")
	addFields(cmd, fields, &given)
	forceFlag(cmd, &forced)
	cmd.Flags().StringArrayVar(&networks, "network", nil, "`CIDR` or address from which ETRN, or ATRN and its log-in, may come; give it again for each")
	flags.add(cmd)
	c.completeAccountFields(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := newAccount(cmd, args[0], &given, domains, networks)
		if err != nil {
			return err
		}
		if err := checkContact(cmd, a, forced); err != nil {
			return err
		}
		if !hasLogin(a) && flags.given() {
			return noLogin(cmd, a)
		}
		return c.atNewLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, _ []string) error {
			return d.addAccount(ctx, cmd, a, flags)
		})(cmd, args)
	}
	return cmd
}

// newAccount makes an account of what the command line says.
func newAccount(cmd *cobra.Command, name string, given *meter.Account, domains, networks []string) (*meter.Account, error) {
	switch {
	case !cmd.Flags().Changed("mode"):
		return nil, wrongUsage(cmd, "--mode is missing: one of %s", list(meter.Modes))
	case len(domains) == 0:
		return nil, wrongUsage(cmd, "--domain is missing: an account has at least one")
	}
	if err := checkFields(cmd, given.Mode); err != nil {
		return nil, err
	}
	a := freshAccount(name, given.Mode)
	copyFields(cmd, fields, a, given)
	for _, text := range domains {
		domain, err := meter.NormalizeDomain(text)
		if err != nil {
			return nil, wrongUsage(cmd, "--domain: %w", err)
		}
		if slices.Contains(a.Domains, domain) {
			return nil, wrongUsage(cmd, "--domain: %s is given twice", domain)
		}
		a.Domains = append(a.Domains, domain)
	}
	for _, text := range networks {
		if a.Mode == meter.POP3 {
			return nil, wrongUsage(cmd, "--network does not fit the mode pop3, only backup, etrn, atrn")
		}
		network, err := parseNetwork(text)
		if err != nil {
			return nil, wrongUsage(cmd, "--network: %w", err)
		}
		a.Networks = append(a.Networks, network)
	}
	if err := a.Validate(); err != nil {
		return nil, usageError{cmd.CommandPath(), err}
	}
	return a, nil
}

// freshAccount has what an account of the mode has where nothing else is said.
func freshAccount(name string, mode meter.Mode) *meter.Account {
	return &meter.Account{
		Name: name, Mode: mode, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient, CatchAll: true, TLS: meter.TLSOpportunistic,
		CRAMMD5: mode == meter.ATRN, // RFC 2645, section 5.1: an ATRN server has to offer CRAM-MD5
	}
}

func forceFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "force", false, "take a --contact in one of the account's own domains")
}

// checkContact refuses a contact whose mail may be what waits.
func checkContact(cmd *cobra.Command, a *meter.Account, forced bool) error {
	if forced || !ownContact(a) {
		return nil
	}
	return wrongUsage(cmd, "--contact %s is in a domain of the account's own, so notices would wait with the mail that they are about; give an address elsewhere, or --force", a.Contact)
}

// ownContact reports whether notices go to one of the account's own domains.
func ownContact(a *meter.Account) bool {
	contact, err := meter.ParseAddress(a.Contact)
	return err == nil && slices.Contains(a.Domains, contact.Domain)
}

// addAccount puts a valid account into the ledger.
func (d *desk) addAccount(ctx context.Context, cmd *cobra.Command, a *meter.Account, flags passwordFlags) error {
	// The ledger says so too, but not before a password was asked for.
	if err := d.refuseTakenName(ctx, a.Name); err != nil {
		return err
	}
	if err := d.refuseConflicts(ctx, a.Domains...); err != nil {
		return err
	}
	var p password
	var v *meter.Verifier
	var err error
	if hasLogin(a) {
		if p, err = d.password(cmd, flags, a.Name); err != nil {
			return err
		}
		if v, err = p.verifier(a.CRAMMD5); err != nil {
			return err
		}
	}
	// What was made while the password was asked for is not set aside.
	if err := d.refuseTakenName(ctx, a.Name); err != nil {
		return err
	}
	if err := d.clear(a.Name, "", "account"); err != nil {
		return err
	}
	if err := d.ledger.AddAccount(ctx, *a, v); err != nil {
		return err
	}
	d.say("added the %s account %s for %s", a.Mode, a.Name, list(a.Domains))
	if err := d.show(p, a.Name); err != nil {
		return err
	}
	d.warn(&meter.Account{Recipients: meter.VerifiedRecipient, Copies: meter.PerRecipient, CatchAll: true}, a, 0)
	d.pointOutSetup(ctx, a)
	return nil
}

// refuseTakenName refuses a name that an account has or had.
func (d *desk) refuseTakenName(ctx context.Context, name string) error {
	taken, err := d.ledger.NamesTaken(ctx, []string{name})
	if deleted, found := taken[name]; found {
		err = fmt.Errorf("%s: %w", name, meter.ErrNameTaken)
		if deleted {
			err = fmt.Errorf("%w (names of deleted accounts are not used again)", err)
		}
	}
	return err
}

// parseNetwork reads a network in CIDR notation or a single address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q has a zone, which no connection shows", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/48", s)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("write %q as an IPv4 network", s)
	}
	return p.Masked(), nil
}

// warn says what a change leads to that its author may not expect: before is the account as it was,
// listed how many recipients it has on its list.
func (c *console) warn(before, after *meter.Account, listed int) {
	relaying := after.Mode != meter.POP3
	if after.Recipients == meter.AnyRecipient && relaying && (before.Recipients != after.Recipients || before.Mode == meter.POP3) {
		c.note("warning: %s accepts any recipient, so mail to unknown ones is returned to senders that are often forged (backscatter); --recipients list%s avoids that",
			after.Name, map[bool]string{true: " or verify"}[after.Mode == meter.Backup])
	}
	if after.Recipients == meter.ListedRecipient && before.Recipients != after.Recipients && listed == 0 {
		c.note(`warning: the recipient list of %s is empty, so all its mail is refused until "mailbag recipient import %s FILE" fills it`, after.Name, after.Name)
	}
	if after.Copies == meter.SingleCopy && before.Copies != after.Copies {
		c.note("warning: a single copy lists every recipient of %s, so Bcc addresses are shown to all who read it", after.Name)
	}
	if after.Mode == meter.POP3 && !after.CatchAll && (before.CatchAll || before.Mode != meter.POP3) {
		c.note(`%s has no catch-all: only its mailboxes take mail; "mailbag mailbox add %s ADDRESS" adds one`, after.Name, after.Name)
	}
}
