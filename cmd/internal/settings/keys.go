package settings

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"mailbag/meter"
)

// A key is one key of the file: its name, its default as the file would write it, who uses it, and where its value is.
type key struct {
	name  string
	value any
	use   use
	place
}

// keys is the only place that knows a key, its default, or what another value of it takes.
var keys = []key{
	{"hostname", "", restart(turnd, popd), into(func(s *Settings) *string { return &s.Hostname }, optional(hostname))},
	{"mta", AutoMTA, restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.MTA }, mailSystem)},
	{"database", "/var/lib/mailbag/mailbag.db", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Database }, database)},
	{"proxies", []any{}, reload(turnd, popd), into(func(s *Settings) *[]netip.Addr { return &s.Proxies }, list(ipAddress))},

	{"cluster.credentials", "", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Cluster.Credentials }, optional(absolutePath))},
	{"cluster.ca", "", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Cluster.CA }, optional(absolutePath))},
	{"cluster.certificate", "", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Cluster.Certificate }, optional(absolutePath))},
	{"cluster.key", "", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Cluster.Key }, optional(absolutePath))},
	{"cluster.state", "/var/lib/mailbag", restart(policyd, turnd, popd), into(func(s *Settings) *string { return &s.Cluster.State }, absolutePath)},

	{"tls.certificate", "/etc/mailbag/tls/fullchain.pem", reload(turnd, popd), into(func(s *Settings) *string { return &s.TLS.Certificate }, absolutePath)},
	{"tls.key", "/etc/mailbag/tls/privkey.pem", reload(turnd, popd), into(func(s *Settings) *string { return &s.TLS.Key }, absolutePath)},

	{"limits.messages", int64(100_000), reload(policyd), into(func(s *Settings) *int64 { return &s.Limits.Messages }, count[int64](meter.MaxLimit))},
	{"limits.bytes", "1GB", reload(policyd), into(func(s *Settings) *int64 { return &s.Limits.Bytes }, size)},
	{"limits.on_limit", "bill", reload(policyd), into(onLimit, limitAction)},

	{"billing.currency", "USD", command, into(func(s *Settings) *string { return &s.Billing.Currency }, currency)},
	{"billing.base_price", "10.00", command, into(func(s *Settings) *int64 { return &s.Billing.BasePrice }, money)},
	{"billing.tier_price", "10.00", command, into(func(s *Settings) *int64 { return &s.Billing.TierPrice }, money)},
	{"billing.prorate", false, command, into(func(s *Settings) *bool { return &s.Billing.Prorate }, boolean)},
	{"billing.timezone", "UTC", restart(policyd, turnd, popd), into(location, timezone)},

	{"retention.messages", "62d", command, into(func(s *Settings) *duration { return &s.Retention.Messages }, retention)},
	{"retention.turns", "400d", command, into(func(s *Settings) *duration { return &s.Retention.Turns }, retention)},
	{"retention.sessions", "90d", command, into(func(s *Settings) *duration { return &s.Retention.Sessions }, retention)},

	{"notices.from", "", command, into(func(s *Settings) *string { return &s.Notices.From }, optional(mailAddress))},
	{"notices.copy", "", command, into(func(s *Settings) *string { return &s.Notices.Copy }, optional(mailAddress))},
	{"notices.templates", "/etc/mailbag/notices", command, into(func(s *Settings) *string { return &s.Notices.Templates }, absolutePath)},
	{"notices.silent", "7d", reload(policyd), into(func(s *Settings) *duration { return &s.Notices.Silent }, silence)},

	{"policy.milter", "", restart(policyd), into(func(s *Settings) *Address { return &s.Policy.Milter }, optional(address))},
	{"policy.listen", "", restart(policyd), into(func(s *Settings) *Address { return &s.Policy.Listen }, optional(address))},
	{"policy.tables", "", restart(policyd, eximd), into(func(s *Settings) *string { return &s.Policy.Tables }, optional(absolutePath))},
	{"policy.metrics", "127.0.0.1:9366", restart(policyd), into(func(s *Settings) *Address { return &s.Policy.Metrics }, optional(address))},

	{"turn.listen", []any{"0.0.0.0:366", "[::]:366"}, restart(turnd), into(func(s *Settings) *[]Address { return &s.Turn.Listen }, list(address))},
	{"turn.listen_tls", []any{}, restart(turnd), into(func(s *Settings) *[]Address { return &s.Turn.ListenTLS }, list(address))},
	{"turn.sockets", "/run/mailbag/turn", restart(policyd, turnd), into(func(s *Settings) *string { return &s.Turn.Sockets }, absolutePath)},
	{"turn.control", "unix:/run/mailbag/turnd.sock", restart(policyd, turnd), into(func(s *Settings) *Address { return &s.Turn.Control }, socketPath)},
	{"turn.release", ByMTA, restart(turnd), into(func(s *Settings) *string { return &s.Turn.Release }, release)},
	{"turn.window", int64(500), reload(turnd), into(func(s *Settings) *int { return &s.Turn.Window }, count[int](1_000_000))},
	{"turn.max_turns", int64(100), reload(turnd), into(func(s *Settings) *int { return &s.Turn.MaxTurns }, count[int](100_000))},
	{"turn.first_wait", "10s", reload(turnd), into(func(s *Settings) *duration { return &s.Turn.FirstWait }, wait)},
	{"turn.idle_wait", "2s", reload(turnd), into(func(s *Settings) *duration { return &s.Turn.IdleWait }, wait)},
	{"turn.metrics", "127.0.0.1:9367", restart(turnd), into(func(s *Settings) *Address { return &s.Turn.Metrics }, optional(address))},

	{"pop.listen", []any{"0.0.0.0:110", "[::]:110"}, restart(popd), into(func(s *Settings) *[]Address { return &s.POP.Listen }, list(address))},
	{"pop.listen_tls", []any{"0.0.0.0:995", "[::]:995"}, restart(popd), into(func(s *Settings) *[]Address { return &s.POP.ListenTLS }, list(address))},
	{"pop.plain_login", false, reload(popd), into(func(s *Settings) *bool { return &s.POP.PlainLogin }, boolean)},
	{"pop.deliver", "unix:/run/mailbag/deliver.sock", restart(policyd, popd), into(func(s *Settings) *Address { return &s.POP.Deliver }, socketPath)},
	{"pop.maildirs", "/var/lib/mailbag/maildirs", restart(popd), into(func(s *Settings) *string { return &s.POP.Maildirs }, absolutePath)},
	{"pop.metrics", "127.0.0.1:9368", restart(popd), into(func(s *Settings) *Address { return &s.POP.Metrics }, optional(address))},
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
