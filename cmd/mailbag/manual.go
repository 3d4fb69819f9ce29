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
	line(".SH SEE ALSO")
	if cmd.HasParent() {
		line(".BR %s (8),", roff(pageName(cmd.Parent())))
	}
	line(".BR mailbag.toml (5)")
	return b.String()
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
