package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commandsIn are the commands of mailbag in lines for a shell, on both sides of a pipe and behind an ssh.
func commandsIn(text string) (all []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " > ")
		for part := range strings.SplitSeq(line, " | ") {
			if i := strings.Index(part, "mailbag "); i >= 0 {
				all = append(all, strings.TrimSpace(part[i:]))
			}
		}
	}
	return all
}

// understood has the shell take a command apart and mailbag look whether it would do it. One that is named in a sentence may
// leave its arguments out.
func understood(t *testing.T, command string, named bool) {
	t.Helper()
	out, err := exec.Command("sh", "-c", `mailbag() { printf '%s\0' "$@"; }; `+command).Output()
	if err != nil {
		t.Errorf("%s: %v", command, err)
		return
	}
	words := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	var c console
	cmd, words, err := c.root().Find(words)
	if err == nil {
		err = cmd.ParseFlags(words)
	}
	if err == nil && !(named && len(cmd.Flags().Args()) == 0) {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err == nil {
		err = cmd.ValidateRequiredFlags()
	}
	if err != nil {
		t.Errorf("%s: %v", command, err)
	}
}

func TestHelpHasLinesForATerminalAndExamplesThatAreCommands(t *testing.T) {
	t.Parallel()
	var c console
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		if !strings.Contains(cmd.Example, cmd.CommandPath()) && !cmd.HasSubCommands() && !cmd.Hidden {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, command := range commandsIn(cmd.Example) {
			understood(t, command, false)
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 128 {
				t.Errorf("the help of %s has a line of %d octets: %s", cmd.CommandPath(), len(line), line)
			}
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(c.root())
}

// TestManualHasCommandsThatThereAre takes those that pages written by hand have in bold.
func TestManualHasCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../packaging/man/*.[578]*")
	if err != nil || len(pages) == 0 {
		t.Fatalf("the pages are %v, %v", pages, err)
	}
	bold := regexp.MustCompile(`(?m)^\.R?BR?(?: \()? "?(mailbag [a-z][^"\n]*?)"?(?: [.,;:)]+)?$`)
	for _, page := range pages {
		for _, found := range bold.FindAllStringSubmatch(read(t, page), -1) {
			understood(t, strings.ReplaceAll(found[1], `\-`, "-"), true)
		}
	}
}

// TestReadmeHasCommandsThatThereAre takes the commands on lines of their own, and those in a sentence that have a flag.
func TestReadmeHasCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	text := read(t, "../../README.md")
	var all []string
	for _, block := range regexp.MustCompile(`(?m)^    (mailbag .*)$`).FindAllStringSubmatch(text, -1) {
		all = append(all, commandsIn(block[1])...)
	}
	for _, span := range regexp.MustCompile("`(mailbag [^`…]* --?[^`…]*)`").FindAllStringSubmatch(text, -1) {
		all = append(all, span[1])
	}
	if len(all) < 40 {
		t.Fatalf("there are %d commands: %q", len(all), all)
	}
	for _, command := range all {
		understood(t, command, false)
	}
}
