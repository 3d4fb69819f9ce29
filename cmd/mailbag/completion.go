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

// maxSuggested bounds how many words are suggested, and how many recipients are looked through: there may be millions.
const maxSuggested = 10_000

// beginning completes from the ledger with the words of a kind that begin as what is typed. Where the ledger cannot be read
// there is nothing to suggest, and no error: the line being typed is not the place for one.
func (c *console) beginning(cmd *cobra.Command, kind meter.Kind, prefix string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if d, err := c.open(cmd.Context(), false); err == nil {
		defer d.ledger.Close()
		words, _ = d.ledger.Beginning(cmd.Context(), kind, prefix, maxSuggested)
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeOnly completes the one argument of a command with words of a kind.
func (c *console) completeOnly(kind meter.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.beginning(cmd, kind, prefix)
	}
}

func (c *console) completeAccounts(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.completeOnly(meter.AccountNames)(cmd, args, prefix)
}

// completeFlushable completes accounts whose mail can be delivered on request.
func (c *console) completeFlushable(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return c.completeOnly(meter.FlushNames)(cmd, args, prefix)
}

// completeFlag completes a flag with words of a kind.
func (c *console) completeFlag(kind meter.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return c.beginning(cmd, kind, prefix)
	}
}

// completeSelection completes the flags of a listing of accounts.
func (c *console) completeSelection(cmd *cobra.Command) {
	suggest(cmd, "mode", cobra.FixedCompletions(texts(meter.Modes), cobra.ShellCompDirectiveNoFileComp))
	suggest(cmd, "sort", cobra.FixedCompletions(texts(meter.SortKeys), cobra.ShellCompDirectiveNoFileComp))
	suggest(cmd, "domain", c.completeFlag(meter.DomainNames))
	suggest(cmd, "customer", c.completeFlag(meter.CustomerWords))
	suggest(cmd, "plan", c.completeFlag(meter.PlanNames))
}

// suggest completes a flag of a command with words.
func suggest(cmd *cobra.Command, flag string, words cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, words); err != nil {
		panic(err) // only where the flag does not exist
	}
}

// completeFile leaves it to the shell to suggest files.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func (c *console) completeLogins(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	words, directive := c.completeOnly(meter.Logins)(cmd, args, strings.TrimPrefix(prefix, `"`)) // which the ledger does not have
	return slices.DeleteFunc(written(words), func(w string) bool { return !strings.HasPrefix(w, prefix) }), directive
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
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return c.completeAccounts(cmd, args, prefix)
	}
	d, err := c.open(cmd.Context(), false)
	if err != nil {
		return nil, none
	}
	defer d.ledger.Close()
	ctx := cmd.Context()
	id, err := d.ledger.AccountID(ctx, args[0])
	if err != nil {
		return nil, none
	}
	some, err := d.ledger.LoadSome(ctx, id)
	if err != nil || some.AccountByID(id) == nil {
		return nil, none
	}
	words := slices.Clone(has(ctx, d, some, some.AccountByID(id)))
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) }), none
}

// completeFields completes the flags that take one of a few words.
func completeFields[Of any](cmd *cobra.Command, fields []field[Of]) {
	for _, f := range fields {
		if f.words == nil {
			continue
		}
		suggest(cmd, f.flag, cobra.FixedCompletions(f.words, cobra.ShellCompDirectiveNoFileComp))
	}
}

// completeAccountFields completes the flags of an account's fields.
func (c *console) completeAccountFields(cmd *cobra.Command) {
	completeFields(cmd, fields)
	suggest(cmd, "plan", c.completePlans)
}
