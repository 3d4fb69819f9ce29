package settings

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mailbag/meter"
)

// A key is one key of the file: its name, its default as the file would write it, and how a value
// gets into the Settings.
type key struct {
	name  string
	value any
	set   func(s *Settings, value any) error
}

// keys is the only place that knows a key or a default.
var keys = []key{
	{"hostname", "", into(func(s *Settings) *string { return &s.Hostname }, optional(hostname))},
	{"mta", AutoMTA, into(func(s *Settings) *string { return &s.MTA }, mailSystem)},
	{"database", "/var/lib/mailbag/mailbag.db", into(func(s *Settings) *string { return &s.Database }, absolutePath)},
	{"proxies", []any{}, into(func(s *Settings) *[]netip.Addr { return &s.Proxies }, list(ipAddress))},

	{"tls.certificate", "/etc/mailbag/tls/fullchain.pem", into(func(s *Settings) *string { return &s.TLS.Certificate }, absolutePath)},
	{"tls.key", "/etc/mailbag/tls/privkey.pem", into(func(s *Settings) *string { return &s.TLS.Key }, absolutePath)},

	{"limits.messages", int64(100_000), into(func(s *Settings) *int64 { return &s.Limits.Messages }, count[int64](meter.MaxLimit))},
	{"limits.bytes", "1GB", into(func(s *Settings) *int64 { return &s.Limits.Bytes }, size)},
	{"limits.on_limit", "bill", into(onLimit, limitAction)},

	{"billing.currency", "USD", into(func(s *Settings) *string { return &s.Billing.Currency }, currency)},
	{"billing.base_price", "10.00", into(func(s *Settings) *int64 { return &s.Billing.BasePrice }, money)},
	{"billing.tier_price", "10.00", into(func(s *Settings) *int64 { return &s.Billing.TierPrice }, money)},
	{"billing.timezone", "UTC", into(location, timezone)},

	{"retention.messages", "62d", into(func(s *Settings) *duration { return &s.Retention.Messages }, retention)},
	{"retention.turns", "400d", into(func(s *Settings) *duration { return &s.Retention.Turns }, retention)},
	{"retention.sessions", "90d", into(func(s *Settings) *duration { return &s.Retention.Sessions }, retention)},

	{"notices.from", "", into(func(s *Settings) *string { return &s.Notices.From }, optional(mailAddress))},
	{"notices.copy", "", into(func(s *Settings) *string { return &s.Notices.Copy }, optional(mailAddress))},
	{"notices.templates", "/etc/mailbag/notices", into(func(s *Settings) *string { return &s.Notices.Templates }, absolutePath)},

	{"policy.milter", "", into(func(s *Settings) *Address { return &s.Policy.Milter }, optional(address))},
	{"policy.listen", "", into(func(s *Settings) *Address { return &s.Policy.Listen }, optional(address))},
	{"policy.tables", "", into(func(s *Settings) *string { return &s.Policy.Tables }, optional(absolutePath))},
	{"policy.metrics", "127.0.0.1:9366", into(func(s *Settings) *Address { return &s.Policy.Metrics }, optional(address))},

	{"turn.listen", []any{"0.0.0.0:366", "[::]:366"}, into(func(s *Settings) *[]Address { return &s.Turn.Listen }, list(address))},
	{"turn.listen_tls", []any{}, into(func(s *Settings) *[]Address { return &s.Turn.ListenTLS }, list(address))},
	{"turn.sockets", "/run/mailbag/turn", into(func(s *Settings) *string { return &s.Turn.Sockets }, absolutePath)},
	{"turn.control", "unix:/run/mailbag/turnd.sock", into(func(s *Settings) *Address { return &s.Turn.Control }, socketPath)},
	{"turn.release", ByMTA, into(func(s *Settings) *string { return &s.Turn.Release }, release)},
	{"turn.window", int64(500), into(func(s *Settings) *int { return &s.Turn.Window }, count[int](1_000_000))},
	{"turn.max_turns", int64(100), into(func(s *Settings) *int { return &s.Turn.MaxTurns }, count[int](100_000))},
	{"turn.first_wait", "10s", into(func(s *Settings) *duration { return &s.Turn.FirstWait }, wait)},
	{"turn.idle_wait", "2s", into(func(s *Settings) *duration { return &s.Turn.IdleWait }, wait)},
	{"turn.metrics", "127.0.0.1:9367", into(func(s *Settings) *Address { return &s.Turn.Metrics }, optional(address))},

	{"pop.listen", []any{"0.0.0.0:110", "[::]:110"}, into(func(s *Settings) *[]Address { return &s.POP.Listen }, list(address))},
	{"pop.listen_tls", []any{"0.0.0.0:995", "[::]:995"}, into(func(s *Settings) *[]Address { return &s.POP.ListenTLS }, list(address))},
	{"pop.plain_login", false, into(func(s *Settings) *bool { return &s.POP.PlainLogin }, boolean)},
	{"pop.deliver", "unix:/run/mailbag/deliver.sock", into(func(s *Settings) *Address { return &s.POP.Deliver }, socketPath)},
	{"pop.maildirs", "/var/lib/mailbag/maildirs", into(func(s *Settings) *string { return &s.POP.Maildirs }, absolutePath)},
	{"pop.metrics", "127.0.0.1:9368", into(func(s *Settings) *Address { return &s.POP.Metrics }, optional(address))},
}

// formerKeys had a meaning once. A file that has one is no mistake, lest an upgrade stops a daemon; the value says what
// became of it.
var formerKeys = map[string]string{
	"policy.lookup": "Postfix reads the tables in policy.tables in place of asking a socket",
}

// Default returns the settings of an empty file.
func Default() *Settings {
	s := new(Settings)
	for _, k := range keys {
		if err := k.set(s, k.value); err != nil {
			panic(fmt.Sprintf("the default of %s is wrong: %v", k.name, err))
		}
	}
	return s
}

// into joins where a value goes and how it is read.
func into[T any](field func(*Settings) *T, read func(any) (T, error)) func(*Settings, any) error {
	return func(s *Settings, value any) error {
		v, err := read(value)
		if err != nil {
			return err
		}
		*field(s) = v
		return nil
	}
}

// findKey returns the key with this name, nil if there is none.
func findKey(name string) *key {
	if i := slices.IndexFunc(keys, func(k key) bool { return k.name == name }); i >= 0 {
		return &keys[i]
	}
	return nil
}

// section returns the names of the keys in a section ("" for the keys before the first one),
// without the section; none if there is no such section.
func section(name string) []string {
	var names []string
	for _, k := range keys {
		if before, after, found := strings.Cut(k.name, "."); found && before == name {
			names = append(names, after)
		} else if !found && name == "" {
			names = append(names, k.name)
		}
	}
	return names
}

// sections returns the names of all sections in the order of the file.
func sections() []string {
	var names []string
	for _, k := range keys {
		if before, _, found := strings.Cut(k.name, "."); found && !slices.Contains(names, before) {
			names = append(names, before)
		}
	}
	return names
}
