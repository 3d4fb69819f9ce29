package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailbag/cmd/internal/version"
)

// manualCommand writes what --help says as manual pages. It is for the package's build, and so is hidden.
func (c *console) manualCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "manual DIR",
		Short:  "Write the manual pages of all commands into a directory",
		Hidden: true,
		Args:   arguments("DIR"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		date, err := buildDate()
		if err != nil {
			return err
		}
		return writeManual(cmd.Root(), date.Format(time.DateOnly), args[0])
	}
	return cmd
}

// buildDate is the time in SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), so that
// the same source makes the same pages; without it, now.
func buildDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeManual writes the pages of a command and of those below it.
func writeManual(cmd *cobra.Command, date, dir string) error {
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			if err := writeManual(sub, date, dir); err != nil {
				return err
			}
		}
	}
	file := filepath.Join(dir, pageName(cmd)+".8")
	if err := os.WriteFile(file, []byte(manualPage(cmd, date)), 0o644); err != nil {
		return fmt.Errorf("a manual page cannot be written: %w", err)
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manualPage is the manual page of a command, in the macros of man(7).
func manualPage(cmd *cobra.Command, date string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH %s 8 %s "mailbag %s" mailbag`, strings.ToUpper(pageName(cmd)), date, version.String())
	line(".SH NAME\n%s \\- %s", pageName(cmd), roff(cmd.Short))
	line(".SH SYNOPSIS\n.B %s", roff(synopsis(cmd)))
	line(".SH DESCRIPTION")
	for i, paragraph := range strings.Split(cmp.Or(cmd.Long, cmd.Short), "\n\n") {
		if i > 0 {
			line(".PP")
		}
		line("%s", roff(paragraph))
	}
	if len(cmd.Commands()) > 0 {
		line(".SH COMMANDS")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				line(".TP\n.BR %s (8)\n%s", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	line(".SH OPTIONS")
	option := func(f *pflag.Flag) {
		if !f.Hidden {
			argument, usage := pflag.UnquoteUsage(f)
			line(".TP\n.B %s\n%s", roff(strings.TrimSpace("--"+f.Name+" "+argument)), roff(usage))
		}
	}
	cmd.NonInheritedFlags().VisitAll(option)
	cmd.InheritedFlags().VisitAll(option)
	if cmd.Example != "" {
		line(".SH EXAMPLES\n.nf\n%s\n.fi", roff(cmd.Example))
	}
	line(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage. Errors on stderr say what to do next.")
	for _, section := range remarks(cmd) {
		line(".SH %s\n%s", section.title, roff(section.text))
	}
	line(".SH SEE ALSO")
	if cmd.HasParent() {
		line(".BR %s (8),", roff(pageName(cmd.Parent())))
	}
	line(".BR mailbag.toml (5)")
	return b.String()
}

// A remark is a section of a manual page that --help does not have.
type remark struct{ title, text string }

// remarks are what a command's page says of security, diagnostics and limits: its own, and what is so of each.
func remarks(cmd *cobra.Command) []remark {
	own := ownRemarks[cmd.CommandPath()]
	return []remark{
		{"SECURITY", cmp.Or(own.security, "Root and the user mailbag may run it, who may write the ledger.") + " See mailbag(8)."},
		{"DIAGNOSTICS", strings.TrimSpace(own.diagnostics + " An error is a sentence on stderr. What is wrong with the service as a whole mailbag doctor tells.")},
		{"LIMITS", strings.TrimSpace(own.limits + " See mailbag(8), and mailbag.toml(5) for those that can be set.")},
	}
}

// ownRemarks are by the command's path; most have none.
var ownRemarks = map[string]struct{ security, diagnostics, limits string }{
	"mailbag account add": {security: "A password is never an argument and is printed only when it was made here; a verifier of it is kept.",
		limits: "A name has 1 to 32 characters, a password 128 octets, a customer 64, a note 500, a hold 100 days at the most."},
	"mailbag account export":     {security: "What it writes as JSON has the verifiers of passwords, by which these can be guessed: keep it as secret as the ledger."},
	"mailbag account import":     {security: "What it writes by --passwords is readable by its owner alone, and the only place that has them: of a password a verifier is kept.", limits: "A JSON file has at most 1 GiB; a CSV file 64 MiB, 1,000,000 rows and 64 KiB in a cell."},
	"mailbag account sheet":      {security: "No password is on the sheet."},
	"mailbag completion":         {security: "It prints a script, and anybody may run it."},
	"mailbag database backup":    {security: "The copy has the verifiers of passwords, and is readable by its owner alone."},
	"mailbag database check":     {diagnostics: "Each damage is a line on stdout, and the status 1."},
	"mailbag doctor":             {security: "It asks as root, with TLS whose certificate it does not verify, and sends no password.", diagnostics: "A line for each part; --json has the same.", limits: "It takes 5 seconds at the most: what does not answer within that is named. Of Maildirs it looks at a sample, and of access control lists at none."},
	"mailbag expire":             {security: "It has the MTA return mail, which needs root. What goes back is bounced by the MTA itself."},
	"mailbag exim check":         {security: "It needs root, and changes nothing.", diagnostics: "A finding is a fault, a warning or a hint; with a fault the status is 1."},
	"mailbag exim remove":        {security: "It changes files in /etc/exim4, which needs root."},
	"mailbag exim setup":         {security: "It changes files in /etc/exim4, which needs root.", limits: "It does not see that somebody else edits them in the same moment."},
	"mailbag exim step-aside":    {security: "It changes files in /etc/exim4, which needs root."},
	"mailbag exim step-in":       {security: "It changes files in /etc/exim4, which needs root."},
	"mailbag notify":             {security: "It runs sendmail(1), with the operator's texts, which nobody else should be able to write.", limits: "A run that is killed leaves its notices to the next one, which sends one of them a second time at the most, with the same Message-ID."},
	"mailbag passwd":             {security: "A password is never an argument and is printed only when it was made here; a verifier of it is kept.", limits: "A password has at most 128 octets."},
	"mailbag postfix check":      {security: "It needs root, and changes nothing.", diagnostics: "A finding is a fault, a warning or a hint; with a fault the status is 1."},
	"mailbag postfix remove":     {security: "It changes main.cf and master.cf by postconf, which needs root."},
	"mailbag postfix step-aside": {security: "It changes main.cf by postconf, which needs root.", limits: "What programs on the host send to accounts' domains while it lasts is not metered. A service in master.cf that names the socket of mailbag-policyd by itself goes on asking it: $mailbag_milter and mailbag_recipients do not."},
	"mailbag postfix step-in":    {security: "It changes main.cf by postconf, which needs root."},
	"mailbag postfix setup":      {security: "It changes main.cf and master.cf by postconf, which needs root. Former values are kept beside them.", limits: "It does not see that somebody else edits main.cf in the same moment."},
	"mailbag queue":              {security: "It lists the MTA's queue, which root may, and on Postfix the group postdrop.", limits: "Of an account it names 20 suspects at most."},
	"mailbag recipient import":   {limits: "A list has at most 10,000,000 addresses, a line of it 1,024 octets."},
	"mailbag trace":              {security: "It reads the MTA's log and queue, and the journal, which root may, or the group adm with the queue's. What they have from strangers is shown with every control character escaped.", limits: "Of 1,000 messages at the most it tells, 2,000 events of each; of the IDs that fit a part of what is asked for it keeps the latest 250,000 to 500,000. Lines of more than 16 KiB are passed over. A message that came more than 7 days before --since is told of without its arrival."},
	"mailbag usage adjust":       {diagnostics: "An adjustment is a line of its own on the bill, with its reason.", limits: "A reason has at most 500 octets; closed months stay as they are."},
}

// synopsis is the use line, without what every command has.
func synopsis(cmd *cobra.Command) string {
	if len(cmd.Commands()) > 0 {
		return cmd.CommandPath() + " COMMAND ..."
	}
	return cmd.UseLine()
}

// roff quotes a text for troff: no line of it is a request, and a hyphen can be copied as one.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
