package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

// transferDocument is the file that accounts go from one ledger to another in.
type transferDocument struct {
	Version  int               `json:"mailbag_accounts"` // of this format
	Plans    []transferPlan    `json:"plans"`
	Accounts []transferAccount `json:"accounts"`
}

const transferVersion = 1

// transferPlan is a price plan in it.
type transferPlan struct {
	Name string `json:"name"`
	termsDocument
}

// transferAccount has the keys of account list --json where they mean the same. A file has all of them but those with omitempty,
// and those that older files lack.
type transferAccount struct {
	Name       string               `json:"name"`
	Customer   string               `json:"customer" older:"lacks"`
	Note       string               `json:"note" older:"lacks"`
	Plan       string               `json:"plan" older:"lacks"`
	Mode       meter.Mode           `json:"mode"`
	Suspended  bool                 `json:"suspended"`
	Domains    []string             `json:"domains"`
	Host       string               `json:"host"`
	TLS        meter.TLSLevel       `json:"tls,omitempty"` // missing in files of older versions: opportunistic
	Networks   []string             `json:"networks"`
	Recipients meter.RecipientCheck `json:"recipients"`
	Listed     []string             `json:"recipient_list"`
	Mailboxes  []string             `json:"mailboxes"`
	Maildirs   map[string]string    `json:"maildirs,omitempty"` // by mailbox, where its address had one before
	termsDocument
	Hold      int64                       `json:"hold"` // seconds
	Contact   string                      `json:"contact"`
	Copies    meter.Copies                `json:"copies"`
	CatchAll  bool                        `json:"catch_all"`
	Quota     int64                       `json:"quota"`
	CRAMMD5   bool                        `json:"cram_md5"`
	Verifiers map[string]transferVerifier `json:"verifiers"` // by log-in
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
	var asCSV bool
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write all accounts as JSON, with the verifiers of their passwords, or as CSV without",
		Long: `Write all accounts as JSON to a file that only you can read, or to stdout: what they are, their domains,
networks, mailboxes, recipient lists, price plans, and the verifiers of their passwords. Keep it as secret as the ledger.
Usage and history are not in it ("mailbag database backup" copies all), nor is mail.

Where the name ends in .csv, or with --csv, it is a table for spreadsheets, in CSV (RFC 4180) and UTF-8, with the
columns of "mailbag account import": no passwords and no recipient lists are in it. Change cells or add rows, and import it.

` + outputMeaning,
		Example: `  mailbag account export accounts.json
  mailbag account export accounts.csv
  mailbag account export | ssh other.example mailbag account import -`,
		Args:              arguments("[FILE]"),
		ValidArgsFunction: completeFile,
	}
	cmd.Flags().BoolVar(&asCSV, "csv", false, "write CSV (RFC 4180), for spreadsheets")
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
		file := strings.Join(append(args, "-")[:1], "")
		export := d.exportJSON
		if asCSV || isNamed(file, ".csv") {
			export = d.exportCSV
		}
		n, text, err := export(ctx)
		if err != nil {
			return err
		}
		if made, err := d.writeText(file, text, 0o600); !made || err != nil {
			return err
		}
		d.say("wrote %s to %s", accountsOf(n), file)
		return nil
	})
	return cmd
}

// exportJSON is all accounts as one ledger gives them to another.
func (d *desk) exportJSON(ctx context.Context) (n int, text []byte, err error) {
	all, plans, err := d.ledger.Transfers(ctx)
	if err != nil {
		return 0, nil, err
	}
	document := transferDocument{Version: transferVersion, Plans: []transferPlan{}, Accounts: []transferAccount{}}
	for _, p := range plans {
		document.Plans = append(document.Plans, transferPlan{p.Name, documentOf(p.Terms)})
	}
	for _, t := range all {
		document.Accounts = append(document.Accounts, packed(t))
	}
	text, err = json.MarshalIndent(document, "", "  ")
	return len(all), append(text, '\n'), err
}

func (c *console) accountImportCommand() *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add and change the accounts of a CSV file, or add those that an export wrote as JSON",
		Long: `Add and change accounts as the rows of a CSV file say, or add those that "mailbag account export" wrote as JSON: all
of them or none. - is stdin; what begins with { or is named .json is JSON. What is wrong is said all at once, with its
line. The ledger is made where it is missing.

The first line of a CSV file names its columns, in any order, of which only name has to be there:

` + wrapped("  ", "  ", columnNames()) + `
They mean and take what the flags of account add and set do; domains, networks and mailboxes have several values in a
cell, apart by spaces, commas or semicolons, and a cell of theirs is the whole list. A row whose name is new adds an
account, which needs a mode and a domain. A row of an account that is there changes what differs. What a column that is
missing or a cell that is empty is of stays as it is; a cell with - alone takes the value away, or brings back the default.
--dry-run has a line for each difference. The file is UTF-8, with commas, semicolons or tabs between its cells, as
spreadsheets save it ("CSV UTF-8"). Capitals mean nothing in names, modes and other words; cells that are missing at the end
of a row are empty.

An account or a mailbox whose log-in is new gets a password. These are written to the file of --passwords, a new one that only
you can read, with the columns name, login and password. It is there before the accounts are: what a crash in between
leaves of it is of no use, and is made anew by another import. A domain for which mail waits and a mailbox in which mail is
stored are not taken away: mailbag domain and mailbox remove ask what becomes of the mail. With another mode, what waits
moves to the new way of delivery.

In JSON, names and domains must be free, and each account has to have every key that an export writes, so that nothing is
left to chance. Passwords go on working. The accounts are billed here from now on. Price plans come along; one that has other
terms here stops the import.

Mail is not in a file: copy the Maildirs, too. Where mail lies there before the accounts do, which may be that of
others, --with-mail has to say that it is theirs.`,
		Example: `  mailbag account import accounts.csv --dry-run
  mailbag account import accounts.csv --passwords passwords.csv
  mailbag account import accounts.json`,
		Args:              arguments("FILE"),
		ValidArgsFunction: completeFile,
	}
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "look whether it can be done and what would change, and change nothing")
	cmd.Flags().BoolVar(&flags.forced, "force", false, "take contacts in their accounts' own domains")
	cmd.Flags().StringVar(&flags.passwords, "passwords", "", "new `FILE` for the passwords of log-ins that a CSV file makes")
	cmd.Flags().BoolVar(&flags.withMail, "with-mail", false, "take mail that is in the accounts' Maildirs for theirs")
	suggest(cmd, "passwords", completeFile)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if flags.passwords == "-" {
			return wrongUsage(cmd, "--passwords needs a file: what is said on stdout is no place for them")
		}
		name, text, isJSON, err := c.readImport(args[0])
		if err != nil {
			return notImported([]error{err})
		}
		if !isJSON {
			file := readCSV(name, text)
			return c.atNewLedger(func(ctx context.Context, d *desk, _ *cobra.Command, _ []string) error {
				return d.importCSV(ctx, file, flags)
			})(cmd, args)
		}
		if flags.passwords != "" {
			return wrongUsage(cmd, "--passwords is for a CSV file; the passwords of what an export wrote as JSON go on working")
		}
		transfers, plans, faults := parseTransfers(name, text)
		if len(faults) > 0 {
			return notImported(faults)
		}
		return c.atNewLedger(func(ctx context.Context, d *desk, _ *cobra.Command, args []string) error {
			return d.importAccounts(ctx, transfers, plans, flags.dryRun, flags.forced, flags.withMail)
		})(cmd, args)
	}
	return cmd
}

func (d *desk) importAccounts(ctx context.Context, transfers []meter.Transfer, plans []*meter.Plan, dryRun, forced, withMail bool) error {
	faults, err := d.ledger.Clashes(ctx, transfers, plans...)
	if err != nil {
		return err
	}
	var domains []string
	for _, t := range transfers {
		if !forced && ownContact(&t.Account) {
			faults = append(faults, fmt.Errorf("the contact %s of %s is in a domain of its own, so notices would wait with the mail that they are about; give an address elsewhere, or --force", t.Contact, t.Name))
		}
		domains = append(domains, t.Domains...)
	}
	if !withMail && len(faults) == 0 { // else it may be mail of accounts that are in the way
		if err := d.storedBefore(transfers); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return notImported(faults)
	}
	if len(domains) > 0 {
		if err := d.refuseConflicts(ctx, domains...); err != nil {
			return err
		}
	}
	if dryRun {
		d.say("%s can be imported", accountsOf(len(transfers)))
		return nil
	}
	if err := d.ledger.Import(ctx, transfers, plans...); err != nil {
		return notImported([]error{err})
	}
	d.say("imported %s", accountsOf(len(transfers)))
	var accounts []*meter.Account
	var stored []string
	for _, t := range transfers {
		accounts = append(accounts, &t.Account)
		if t.Mode == meter.POP3 {
			stored = append(stored, t.Name)
		}
	}
	d.pointOutSetup(ctx, accounts...)
	if len(stored) > 0 && !withMail {
		d.note("the Maildirs of %s are not in the file; copy them to %s", few(stored), d.settings.POP.Maildirs)
	}
	return nil
}

// shownFaults is how many faults of a file are told.
const shownFaults = 100

// notImported says all that is in the way of an import.
func notImported(faults []error) error {
	if len(faults) == 1 {
		return fmt.Errorf("nothing was imported: %w", faults[0])
	}
	var text strings.Builder
	fmt.Fprintf(&text, "nothing was imported, for %s reasons:", grouped(int64(len(faults))))
	for i, fault := range faults {
		if i == shownFaults {
			fmt.Fprintf(&text, "\n  and %s more", grouped(int64(len(faults)-i)))
			break
		}
		text.WriteString("\n  " + sentence(fault) + advice(fault))
	}
	return errors.New(text.String())
}

func accountsOf(n int) string { return grouped(int64(n)) + " " + verb(int64(n), "account", "accounts") }

// packed is an account as the file has it.
func packed(t meter.Transfer) transferAccount {
	p := transferAccount{
		Name: t.Name, Customer: t.Customer, Note: t.Note, Plan: t.Plan, Mode: t.Mode, Suspended: t.Suspended, Domains: append([]string{}, t.Domains...), Host: t.Host, TLS: t.TLS, Networks: []string{},
		Recipients: t.Recipients, Listed: append([]string{}, t.Listed...), Mailboxes: append([]string{}, t.Mailboxes...), Maildirs: t.Maildirs,
		termsDocument: documentOf(t.Terms), Hold: int64(t.Hold / time.Second),
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
