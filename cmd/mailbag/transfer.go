package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// transferDocument is the file that accounts go from one ledger to another in.
type transferDocument struct {
	Version  int               `json:"mailbag_accounts"` // of this format
	Accounts []transferAccount `json:"accounts"`
}

const transferVersion = 1

// maxTransfer bounds the file, in octets: ten million listed recipients fit.
const maxTransfer = 1 << 30

// transferAccount has the keys of account list --json where they mean the same.
type transferAccount struct {
	Name       string                      `json:"name"`
	Mode       meter.Mode                  `json:"mode"`
	Suspended  bool                        `json:"suspended"`
	Domains    []string                    `json:"domains"`
	Host       string                      `json:"host"`
	TLS        meter.TLSLevel              `json:"tls"` // missing: opportunistic, as in files of older versions
	Networks   []string                    `json:"networks"`
	Recipients meter.RecipientCheck        `json:"recipients"`
	Listed     []string                    `json:"recipient_list"`
	Mailboxes  []string                    `json:"mailboxes"`
	Messages   int64                       `json:"messages"`
	Bytes      int64                       `json:"bytes"`
	OnLimit    meter.OnLimit               `json:"on_limit"`
	MaxTiers   int64                       `json:"max_tiers"`
	BasePrice  *string                     `json:"base_price"`
	TierPrice  *string                     `json:"tier_price"`
	Hold       int64                       `json:"hold"` // seconds
	Contact    string                      `json:"contact"`
	Copies     meter.Copies                `json:"copies"`
	CatchAll   bool                        `json:"catch_all"`
	Quota      int64                       `json:"quota"`
	CRAMMD5    bool                        `json:"cram_md5"`
	Verifiers  map[string]transferVerifier `json:"verifiers"` // by log-in
}

// transferVerifier is what is kept of a password, in base64.
type transferVerifier struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
	CRAMMD5    []byte `json:"cram_md5,omitempty"`
}

func (c *console) accountExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write all accounts as JSON, with the verifiers of their passwords",
		Long: `Write all accounts as JSON to a file that only you can read, or to stdout: what they are, their domains,
networks, mailboxes, recipient lists, and the verifiers of their passwords. Keep it as secret as the ledger.
Usage and history are not in it ("mailbag database backup" copies all), nor is mail.

` + outputMeaning,
		Example: `  mailbag account export accounts.json
  mailbag account export | ssh other.example mailbag account import -`,
		Args:              arguments("[FILE]"),
		ValidArgsFunction: completeFile,
		RunE: c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			all, err := d.ledger.Transfers(ctx)
			if err != nil {
				return err
			}
			document := transferDocument{Version: transferVersion, Accounts: []transferAccount{}}
			for _, t := range all {
				document.Accounts = append(document.Accounts, packed(t))
			}
			if len(args) == 0 {
				return d.json(document)
			}
			text, err := json.MarshalIndent(document, "", "  ")
			if err != nil {
				return err
			}
			if made, err := d.writeText(args[0], append(text, '\n'), 0o600); !made || err != nil {
				return err
			}
			d.say("wrote %s to %s", accountsOf(len(all)), args[0])
			return nil
		}),
	}
}

func (c *console) accountImportCommand() *cobra.Command {
	var dryRun, forced bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add the accounts that an export wrote",
		Long: `Add the accounts that "mailbag account export" wrote, all of them or none; - is stdin. Names and domains
must be free. Passwords go on working. The accounts are billed here from now on. The ledger is made where
it is missing.`,
		Example:           "  mailbag account import accounts.json --dry-run\n  mailbag account import accounts.json",
		Args:              arguments("FILE"),
		ValidArgsFunction: completeFile,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "look whether it can be done, and change nothing")
	cmd.Flags().BoolVar(&forced, "force", false, "take contacts in their accounts' own domains")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		transfers, err := c.readTransfers(args[0])
		if err != nil {
			return fmt.Errorf("nothing was imported: %w", err)
		}
		return c.atNewLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			return d.importAccounts(ctx, transfers, dryRun, forced)
		})(cmd, args)
	}
	return cmd
}

func (d *desk) importAccounts(ctx context.Context, transfers []meter.Transfer, dryRun, forced bool) error {
	all, err := d.ledger.Load(ctx)
	if err != nil {
		return err
	}
	var domains []string
	for _, t := range transfers {
		if all.Account(t.Name) != nil {
			return fmt.Errorf("nothing was imported: %s: %w", t.Name, meter.ErrNameTaken)
		}
		if !forced && ownContact(&t.Account) {
			return fmt.Errorf("nothing was imported: the contact %s of %s is in a domain of its own, so notices would wait with the mail that they are about; give an address elsewhere, or --force", t.Contact, t.Name)
		}
		for _, domain := range t.Domains {
			if a := all.Domain(domain); a != nil {
				return fmt.Errorf("nothing was imported: %s: %w: %s", domain, meter.ErrDomainTaken, a.Name)
			}
		}
		domains = append(domains, t.Domains...)
	}
	if err := d.refuseConflicts(ctx, domains...); err != nil {
		return err
	}
	if dryRun {
		d.say("%s can be imported", accountsOf(len(transfers)))
		return nil
	}
	if err := d.ledger.Import(ctx, transfers); err != nil {
		return fmt.Errorf("nothing was imported: %w", err)
	}
	d.say("imported %s", accountsOf(len(transfers)))
	for _, t := range transfers {
		d.pointOutSetup(ctx, &t.Account)
		if t.Mode == meter.POP3 {
			d.note("the Maildirs of %s are not in the file; copy them to %s", t.Name, d.settings.POP.Maildirs)
		}
	}
	return nil
}

func accountsOf(n int) string { return grouped(int64(n)) + " " + verb(int64(n), "account", "accounts") }

// packed is an account as the file has it.
func packed(t meter.Transfer) transferAccount {
	p := transferAccount{
		Name: t.Name, Mode: t.Mode, Suspended: t.Suspended, Domains: append([]string{}, t.Domains...), Host: t.Host, TLS: t.TLS, Networks: []string{},
		Recipients: t.Recipients, Listed: append([]string{}, t.Listed...), Mailboxes: append([]string{}, t.Mailboxes...),
		Messages: t.Messages, Bytes: t.Bytes, OnLimit: t.OnLimit, MaxTiers: t.MaxTiers,
		BasePrice: ownPrice(t.BasePrice), TierPrice: ownPrice(t.TierPrice), Hold: int64(t.Hold / time.Second),
		Contact: t.Contact, Copies: t.Copies, CatchAll: t.CatchAll, Quota: t.Quota, CRAMMD5: t.CRAMMD5, Verifiers: map[string]transferVerifier{},
	}
	for _, network := range t.Networks {
		p.Networks = append(p.Networks, network.String())
	}
	for login, v := range t.Verifiers {
		p.Verifiers[login] = transferVerifier(*v)
	}
	return p
}

// readTransfers reads a file whole and strictly: what is not understood could be what keeps mail out.
func (c *console) readTransfers(name string) ([]meter.Transfer, error) {
	in := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTransfer+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxTransfer {
		return nil, fmt.Errorf("%s is larger than 1 GiB", name)
	}
	return parseTransfers(text)
}

func parseTransfers(text []byte) ([]meter.Transfer, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var document transferDocument
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf(`it is not what "mailbag account export" writes: %w`, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New(`it is not what "mailbag account export" writes: something is behind its end`)
	}
	if document.Version != transferVersion {
		return nil, fmt.Errorf("it is of version %d, and this mailbag reads %d", document.Version, transferVersion)
	}
	var all []meter.Transfer
	for _, p := range document.Accounts {
		t, err := p.unpacked()
		if err != nil {
			return nil, fmt.Errorf("the account %q: %w", p.Name, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func (p transferAccount) unpacked() (meter.Transfer, error) {
	t := meter.Transfer{
		Account: meter.Account{
			Name: p.Name, Mode: p.Mode, Suspended: p.Suspended, Host: p.Host, TLS: p.TLS, Recipients: p.Recipients, Messages: p.Messages, Bytes: p.Bytes,
			OnLimit: p.OnLimit, MaxTiers: p.MaxTiers, Contact: p.Contact, Copies: p.Copies, CatchAll: p.CatchAll, Quota: p.Quota, CRAMMD5: p.CRAMMD5,
		},
		Listed: p.Listed, Mailboxes: p.Mailboxes, Verifiers: map[string]*meter.Verifier{},
	}
	if p.Hold < 0 || p.Hold > int64(meter.MaxHold/time.Second) {
		return t, fmt.Errorf("a hold of %d seconds is not 0 to %s", p.Hold, units.FormatDuration(meter.MaxHold))
	}
	t.Hold = time.Duration(p.Hold) * time.Second
	for _, price := range []struct {
		text *string
		to   *meter.Price
	}{{p.BasePrice, &t.BasePrice}, {p.TierPrice, &t.TierPrice}} {
		if price.text == nil {
			continue
		}
		cents, err := units.ParseMoney(*price.text)
		if err != nil {
			return t, err
		}
		*price.to = meter.Price{Set: true, Cents: meter.Cents(cents)}
	}
	for _, text := range p.Domains {
		domain, err := meter.NormalizeDomain(text)
		if err != nil {
			return t, err
		}
		t.Domains = append(t.Domains, domain)
	}
	for _, text := range p.Networks {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return t, fmt.Errorf("%q is not a network", text)
		}
		t.Networks = append(t.Networks, network.Masked())
	}
	for login, v := range p.Verifiers {
		verifier := meter.Verifier(v)
		t.Verifiers[login] = &verifier
	}
	return t, t.Validate()
}
