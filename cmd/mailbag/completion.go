package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailbag/meter"
)

func (c *console) completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Write a completion script for your shell",
		Long:  "Write a completion script for your shell. It completes commands and flags, and accounts, domains and addresses from the ledger.",
		Example: `  mailbag completion bash > /etc/bash_completion.d/mailbag
  mailbag completion zsh > "${fpath[1]}/_mailbag"
  mailbag completion fish > ~/.config/fish/completions/mailbag.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      arguments("bash|zsh|fish"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		switch root := cmd.Root(); args[0] {
		case "bash":
			err = root.GenBashCompletionV2(c.out, true)
		case "zsh":
			err = root.GenZshCompletion(c.out)
		case "fish":
			err = root.GenFishCompletion(c.out, true)
		default:
			return wrongUsage(cmd, "the shell %q is none of bash, zsh, fish", args[0])
		}
		return outputError(err)
	}
	return cmd
}

// suggest makes a completion of one argument from the ledger. Where that cannot be read there is
// nothing to suggest, and no error: the line being typed is not the place for one.
func (c *console) suggest(position int, words func(context.Context, *desk, *meter.Directory, []string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		if len(args) < position {
			return c.completeAccounts(cmd, args, prefix)
		}
		d, err := c.open(cmd.Context(), false)
		if err != nil {
			return nil, none
		}
		defer d.ledger.Close()
		all, err := d.ledger.Load(cmd.Context())
		if err != nil {
			return nil, none
		}
		fitting := slices.DeleteFunc(slices.Clone(words(cmd.Context(), d, all, args)),
			func(w string) bool { return !strings.HasPrefix(w, prefix) })
		return fitting, none
	}
}

func (c *console) completeAccounts(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggest(0, func(_ context.Context, _ *desk, all *meter.Directory, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return names(all)
	})(cmd, args, prefix)
}

// completeFlushable completes accounts whose mail can be delivered on request.
func (c *console) completeFlushable(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggest(0, func(_ context.Context, _ *desk, all *meter.Directory, args []string) []string {
		var names []string
		for a := range all.Accounts() {
			if len(args) == 0 && flushable(a) {
				names = append(names, a.Name)
			}
		}
		return names
	})(cmd, args, prefix)
}

// completeFile leaves it to the shell to suggest files.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func (c *console) completeLogins(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggest(0, func(_ context.Context, _ *desk, all *meter.Directory, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		logins := names(all)
		for a := range all.Accounts() {
			logins = append(logins, written(all.Mailboxes(a))...)
		}
		return logins
	})(cmd, args, prefix)
}

func (c *console) completeDomains(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggestOf(cmd, args, prefix, func(_ context.Context, _ *desk, _ *meter.Directory, a *meter.Account) []string { return a.Domains })
}

func (c *console) completeNetworks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggestOf(cmd, args, prefix, func(_ context.Context, _ *desk, _ *meter.Directory, a *meter.Account) []string {
		var networks []string
		for _, network := range a.Networks {
			networks = append(networks, network.String())
		}
		return networks
	})
}

func (c *console) completeMailboxes(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggestOf(cmd, args, prefix, func(_ context.Context, _ *desk, all *meter.Directory, a *meter.Account) []string {
		return written(all.Mailboxes(a))
	})
}

// maxSuggested bounds how many recipients are looked through: lists may have millions.
const maxSuggested = 10_000

func (c *console) completeRecipients(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.suggestOf(cmd, args, prefix, func(ctx context.Context, d *desk, _ *meter.Directory, a *meter.Account) []string {
		var addresses []string
		for address, err := range d.ledger.Recipients(ctx, a.ID) {
			if err != nil || len(addresses) == maxSuggested {
				break
			}
			addresses = append(addresses, meter.Written(address))
		}
		return addresses
	})
}

// suggestOf completes an argument behind the account's name with what the account has.
func (c *console) suggestOf(cmd *cobra.Command, args []string, prefix string,
	has func(context.Context, *desk, *meter.Directory, *meter.Account) []string) ([]string, cobra.ShellCompDirective) {
	return c.suggest(1, func(ctx context.Context, d *desk, all *meter.Directory, args []string) []string {
		a := all.Account(args[0])
		if a == nil {
			return nil
		}
		return has(ctx, d, all, a)
	})(cmd, args, prefix)
}

func names(all *meter.Directory) []string {
	var names []string
	for a := range all.Accounts() {
		names = append(names, a.Name)
	}
	return names
}

// completeFields completes the flags that take one of a few words.
func completeFields[Of any](cmd *cobra.Command, fields []field[Of]) {
	for _, f := range fields {
		if f.words == nil {
			continue
		}
		if err := cmd.RegisterFlagCompletionFunc(f.flag, cobra.FixedCompletions(f.words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // only where the flag does not exist
		}
	}
}

// completeAccountFields completes the flags of an account's fields.
func (c *console) completeAccountFields(cmd *cobra.Command) {
	completeFields(cmd, fields)
	if err := cmd.RegisterFlagCompletionFunc("plan", c.completePlans); err != nil {
		panic(err) // only where the flag does not exist
	}
}
