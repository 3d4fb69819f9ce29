package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailbag/meter"
	"mailbag/meter/login"
)

// maxLine is the longest line that is read as a password, in octets.
const maxLine = 1024

// A secretReader asks a person for a text that must not be seen.
type secretReader interface {
	// readSecret shows the prompt and reads one line without echo.
	readSecret(ctx context.Context, prompt string) (string, error)
}

// terminal asks at the terminal that stdin is.
type terminal struct{ in, prompts *os.File }

func (t terminal) readSecret(ctx context.Context, prompt string) (string, error) {
	fd := int(t.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("the terminal cannot be set up for a password: %w", err)
	}
	// The read ends with a line only. Who interrupts it gets the terminal back with its echo.
	stop := context.AfterFunc(ctx, func() {
		term.Restore(fd, before)
		fmt.Fprintln(t.prompts)
		os.Exit(failed)
	})
	defer stop()
	fmt.Fprint(t.prompts, prompt)
	text, err := term.ReadPassword(fd)
	fmt.Fprintln(t.prompts)
	if err != nil {
		return "", fmt.Errorf("no password was read: %w", err)
	}
	return string(text), nil
}

// passwordFlags are the ways to give a password to a command.
type passwordFlags struct{ stdin, generate bool }

func (p *passwordFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.stdin, "password-stdin", false, "read the password from stdin, one line")
	cmd.Flags().BoolVar(&p.generate, "generate-password", false, "make a password and show it, once")
}

func (p *passwordFlags) given() bool { return p.stdin || p.generate }

// A password and whether its owner has still to be shown it.
type password struct {
	text  string
	fresh bool
}

// password gets one by the way that the flags name, else from the person at the terminal.
func (c *console) password(cmd *cobra.Command, flags passwordFlags, login string) (password, error) {
	switch {
	case flags.stdin && flags.generate:
		return password{}, wrongUsage(cmd, "--password-stdin and --generate-password exclude each other")
	case flags.generate:
		return password{generatePassword(), true}, nil
	case flags.stdin:
		text, err := readLine(c.in)
		return password{text, false}, err
	case c.secret == nil:
		return password{}, wrongUsage(cmd, "a password is needed and stdin is no terminal to ask for it: give --password-stdin or --generate-password")
	}
	first, err := c.secret.readSecret(cmd.Context(), fmt.Sprintf("Password for %s: ", login))
	if err != nil {
		return password{}, err
	}
	second, err := c.secret.readSecret(cmd.Context(), "The same again: ")
	if err != nil {
		return password{}, err
	}
	if first != second {
		return password{}, errors.New("the two passwords differ; nothing was changed, try again")
	}
	return password{first, false}, nil
}

// verifier is what is kept of it.
func (p password) verifier(cramMD5 bool) (*meter.Verifier, error) {
	return login.NewVerifier(p.text, cramMD5)
}

// show prints a password that mailbag made for a log-in. Nobody can find it out later.
func (c *console) show(p password, login string) error {
	if !p.fresh {
		return nil
	}
	c.say("password: %s", p.text)
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf(`the new password of %s is in force and could not be shown (%v); "mailbag passwd %s" gives it another`, login, err, login)
	}
	return nil
}

// readLine reads one line, or all there is where no line end comes.
func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	for octet := make([]byte, 1); ; {
		n, err := r.Read(octet)
		switch {
		case n == 1 && octet[0] == '\n', errors.Is(err, io.EOF):
			return strings.TrimSuffix(line.String(), "\r"), nil
		case err != nil:
			return "", fmt.Errorf("no password was read from stdin: %w", err)
		case line.Len() == maxLine:
			return "", fmt.Errorf("the line on stdin is longer than %d octets, which is no password", maxLine)
		}
		line.Write(octet[:n])
	}
}

// unambiguous leaves out 0 and O, 1, l and I, and o, which are mistaken for each other when read aloud
// or typed from paper.
const unambiguous = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// generatePassword makes 24 characters, 139 bits.
func generatePassword() string {
	text := make([]byte, 24)
	for i := range text {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(unambiguous))))
		if err != nil {
			panic(err) // crypto/rand promises that it does not fail
		}
		text[i] = unambiguous[n.Int64()]
	}
	return string(text)
}

func (c *console) passwdCommand() *cobra.Command {
	var flags passwordFlags
	cmd := &cobra.Command{
		Use:   "passwd NAME|ADDRESS",
		Short: "Give an account or a mailbox a new password",
		Long: `Give an account (NAME) or one of the mailboxes of a pop3 account (ADDRESS) a new password. It is asked
for at the terminal, twice and without echo, unless a flag gives another way. What CRAM-MD5 needs is
kept of it where the account is set to --cram-md5.`,
		Example: `  mailbag passwd acme
  mailbag passwd info@acme.example --generate-password
  pass show acme | mailbag passwd acme --password-stdin`,
		Args:              arguments("NAME|ADDRESS"),
		ValidArgsFunction: c.completeLogins,
	}
	flags.add(cmd)
	cmd.RunE = c.atLedger(func(ctx context.Context, d *desk, cmd *cobra.Command, args []string) error {
		a, login, err := d.login(ctx, cmd, args[0])
		if err != nil {
			return err
		}
		shown := meter.Written(login)
		p, err := d.password(cmd, flags, shown)
		if err != nil {
			return err
		}
		v, err := p.verifier(a.CRAMMD5)
		if err != nil {
			return err
		}
		if err := d.ledger.SetPassword(ctx, a.Name, login, v); err != nil {
			return err
		}
		d.say("%s has a new password", shown)
		return d.show(p, shown)
	})
	return cmd
}

// login finds the account whose log-in it is, and the form in which the ledger keeps it.
func (d *desk) login(ctx context.Context, cmd *cobra.Command, text string) (*meter.Account, string, error) {
	if !strings.Contains(text, "@") {
		_, a, err := d.account(ctx, text)
		if err == nil && !hasLogin(a) {
			err = noLogin(cmd, a)
		}
		return a, text, err
	}
	var a *meter.Account
	has := func(meter.Address) bool { return false }
	if domain, err := meter.NormalizeDomain(text[strings.LastIndexByte(text, '@')+1:]); err == nil {
		owners, err := d.ledger.Owners(ctx, []string{domain})
		if err != nil {
			return nil, "", err
		}
		if owner, found := owners[domain]; found {
			var its *meter.Directory
			if its, a, err = d.account(ctx, owner); err != nil {
				return nil, "", err
			}
			has = func(address meter.Address) bool { return its.Mailbox(address) != nil }
		}
	}
	address, err := existing(text, has)
	if err != nil {
		return nil, "", wrongUsage(cmd, "%w", err)
	}
	if !has(address) {
		return nil, "", fmt.Errorf("%s: %w", address, meter.ErrNoMailbox)
	}
	return a, address.Key(), nil
}

// hasLogin reports whether anything can be fetched with the account's own log-in.
func hasLogin(a *meter.Account) bool {
	return a.Mode == meter.ATRN || a.Mode == meter.POP3 && a.CatchAll
}

// noLogin is why a password would be of no use to the account.
func noLogin(cmd *cobra.Command, a *meter.Account) error {
	if a.Mode == meter.POP3 {
		return wrongUsage(cmd, "%s has no catch-all and so no log-in of its own; its mailboxes have theirs", a.Name)
	}
	return wrongUsage(cmd, "an account of the mode %s has no log-in and takes no password", a.Mode)
}
