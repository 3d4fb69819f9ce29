package postfix

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mailbag/cmd/internal/mta"
	postfixtest "mailbag/testdata/postfix"
)

func TestOurCheckComesAsLateAsAllMailComesToIt(t *testing.T) {
	t.Parallel()
	const check = "check_recipient_access static:" + recipientClass
	c := configuration{expanded: map[string]string{"smtpd_restriction_classes": "mine, round", "round": "round",
		"mine": "reject_unauth_destination, permit_tls_clientcerts", "macro": "reject_x, permit", "harmless": "reject_x", "whole": check + ", permit"}}
	for list, want := range map[string]string{
		"":                                  "X",
		"permit":                            "X, permit",
		"a permit":                          "a, X permit",
		"a,PERMIT":                          "a, X,PERMIT",
		"a,\t":                              "a, X",
		"reject_a, reject, permit":          "reject_a, X, reject, permit",
		"reject_a permit_mynetworks, b":     "reject_a, X permit_mynetworks, b",
		"permit_mx_backup":                  "X, permit_mx_backup",
		"check_client_access permit, defer": "check_client_access permit, X, defer",
		"a, warn_if_reject permit, b":       "a, X, warn_if_reject permit, b",
		"warn_if_reject reject_a, permit":   "warn_if_reject reject_a, X, permit",
		"a, MINE, b":                        "a, X, MINE, b",
		"a, round, b":                       "a, round, b, X",
		"a, $macro, b":                      "a, X, $macro, b",
		"a, $harmless, b":                   "a, $harmless, b, X",
		"a, ${set?{permit}}, b":             "a, X, ${set?{permit}}, b",
		"a, $whole":                         "a, $whole",
		"permit_x, ${whole}":                "X, permit_x, ${whole}",
		"defer_if_permit, reject_x":         "defer_if_permit, reject_x, X",
	} {
		if got := strings.ReplaceAll(c.place(list, check), check, "X"); got != strings.ReplaceAll(want, check, "X") && !(want == list && got == list) {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

func TestRestrictionsKeepTheirArguments(t *testing.T) {
	t.Parallel()
	var got []string
	for _, r := range (configuration{}).restrictions("permit_mynetworks check_policy_service { unix:x, a=b }, reject_rbl_client x.example=127.0.0.2, REJECT") {
		got = append(got, r.text)
	}
	want := []string{"permit_mynetworks", "check_policy_service { unix:x, a=b }", "reject_rbl_client x.example=127.0.0.2", "reject"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Restrictions of operators, and what a mailbag of some version put between them.
var (
	theirs = []string{"permit_mynetworks", "permit_sasl_authenticated", "permit", "reject", "defer", "defer_if_permit", "PERMIT_MX_BACKUP",
		"reject_unauth_destination", "reject_unlisted_recipient", "warn_if_reject reject_unknown_client_hostname", "warn_if_reject permit",
		"check_client_access cidr:{{192.0.2.1 OK}}", "check_policy_service { unix:private/other, timeout=5s }", "reject_rbl_client rbl.example=127.0.0.[2..10]",
		"inline:{a=OK}", "$mine", "${mine}", "mine_class", "MINE_CLASS", "${unset?{permit}}", "sleep 1"}
	oursOnce = []string{noTables.check(), "warn_if_reject " + noTables.check(), formerRecipientCheck, formerCheck}
)

const noTables = tables("/tables")

// restrictionList draws a list as an operator writes it; ours are in some of them, at any place.
func restrictionList(pieces ...string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		list := rapid.SampledFrom([]string{"", "", " ", ","}).Draw(t, "start")
		for i, piece := range rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 8).Draw(t, "pieces") {
			if i > 0 {
				list += rapid.SampledFrom([]string{", ", ",", " ", " , ", "  "}).Draw(t, "separator")
			}
			list += piece
		}
		return list
	})
}

// operators are the words of a list that are not ours.
func operators(list string) []string {
	for _, part := range withWarning(noTables.check(), formerRecipientCheck, formerCheck) {
		list = cut(list, part)
	}
	return texts(list)
}

func TestSetupAndCheckAgreeOnEveryOrderOfRestrictions(t *testing.T) {
	t.Parallel()
	const name = "smtpd_recipient_restrictions"
	plain := slices.DeleteFunc(slices.Clone(theirs), func(s string) bool { return strings.Contains(strings.ToLower(s), "mine") })
	par := parameters(mta.Needs{Tables: string(noTables)}, since)[4]
	if par.name != name {
		t.Fatal(par.name)
	}
	rapid.Check(t, func(t *rapid.T) {
		list := restrictionList(slices.Concat(theirs, oursOnce)...).Draw(t, "list")
		c := configuration{
			explicit: map[string]string{"mine": restrictionList(slices.Concat(plain, oursOnce[:1])...).Draw(t, "mine"),
				"mine_class": restrictionList(plain...).Draw(t, "class")},
			expanded: map[string]string{"smtpd_restriction_classes": "mine_class, " + recipientClass},
			inForce:  map[string]string{},
		}
		to := func(list string) {
			c.explicit[name], c.inForce[name], c.expanded[name] = list, list, c.expand(list)
		}
		to(list)
		var old former
		if rapid.Bool().Draw(t, "remembered") {
			old.Main = map[string]formerLine{name: {true, strings.Join(operators(list), " "), list}}
		}
		line := func(wired bool) (was former, changes []Change) {
			p := &plan{former: former{Main: map[string]formerLine{}}}
			p.line(c, old, par, wired)
			for _, change := range p.Changes {
				to(change.New.Text)
			}
			return p.former, p.Changes
		}
		old, _ = line(true)
		set := c.explicit[name]
		if !c.reached(set, noTables.check()) {
			t.Fatalf("not all mail comes to our check in %q", set)
		}
		for _, f := range order(c, noTables) {
			if f.Severity != mta.Hint {
				t.Fatalf("after setup wrote %q: %s", set, f.Text)
			}
		}
		if diff := cmp.Diff(operators(list), operators(set)); diff != "" {
			t.Fatalf("setup made %q of %q: %s", set, list, diff)
		}
		var again []Change
		if old, again = line(true); len(again) > 0 {
			t.Fatalf("a second setup makes %q of %q", again[0].New.Text, set)
		}
		line(false)
		if diff := cmp.Diff(operators(list), texts(c.explicit[name])); diff != "" {
			t.Fatalf("a removal makes %q of %q: %s", c.explicit[name], list, diff)
		}
	})
}

// The same on a real Postfix, for all that setup touches, and with services of their own.
func TestAfterSetupCheckFindsNothingThatSetupCouldMend(t *testing.T) {
	t.Parallel()
	postfixtest.RequirePostfix(t)
	in, p := configured(t, "")
	runDaemon(t, p)
	base, err := os.ReadFile(filepath.Join(in.ConfigDir, "main.cf"))
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer(string(noTables), string(noRoutes))
	list := func(seed int, pieces ...string) string {
		return replaced.Replace(restrictionList(pieces...).Example(seed))
	}
	routes, ways := noTables.routes(), noTables.ways()
	for seed := range 12 {
		main := map[string]string{
			"compatibility_level":          "3.6",
			"mine":                         list(seed+1000, "reject_unauth_destination", "permit_mynetworks", noTables.check()),
			"mine_class":                   list(seed+2000, "reject_unauth_destination", "permit_sasl_authenticated"),
			"smtpd_recipient_restrictions": list(seed, slices.Concat(theirs, oursOnce)...),
			"smtpd_restriction_classes":    "mine_class, " + list(seed, recipientClass, etrnClass),
			"smtpd_relay_restrictions":     list(seed, "permit_mynetworks", "permit_sasl_authenticated", "reject_unlisted_recipient") + " reject_unauth_destination",
			"relay_domains":                list(seed, "own.example", "!other.example", routes, "$mydestination"),
			"relay_recipient_maps":         list(seed, "inline:{a=b}", routes),
			"transport_maps":               list(seed, "inline:{a=b}", ways),
			"smtpd_milters":                list(seed, "inet:127.0.0.1:1", "$"+milterMacro, formerTap),
			"non_smtpd_milters":            list(seed, "$smtpd_milters", "inet:127.0.0.1:2", "$"+milterMacro),
			"smtpd_etrn_restrictions":      list(seed, "permit_mynetworks", etrnClass, "reject", formerETRNCheck),
			"defer_transports":             list(seed, "uucp", turnTransport),
		}
		text := string(base)
		for _, name := range slices.Sorted(maps.Keys(main)) {
			text += name + " = " + main[name] + "\n"
		}
		for _, name := range []string{recipientClass, etrnClass, milterMacro} { // which our pieces name
			text += name + " =\n"
		}
		if err := os.WriteFile(filepath.Join(in.ConfigDir, "main.cf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		edit(t, in, "-Me", "587/inet=587 inet n - y - - smtpd -o { smtpd_recipient_restrictions = "+list(seed+3000, "permit_mynetworks", "reject", noTables.check())+" }")
		setUp(t, in, longHold())
		wired := written(t, in)
		for _, f := range check(t, in, longHold()) {
			if strings.Contains(f, "is not what mailbag needs") || strings.HasPrefix(f, "warning: smtpd_recipient_restrictions") || strings.HasPrefix(f, "fault: smtpd_recipient_restrictions") {
				t.Errorf("seed %d: after setup: %s\n%s", seed, f, text)
			}
		}
		if again := setUp(t, in, longHold()); !again.Empty() || written(t, in) != wired {
			t.Errorf("seed %d: a second setup changes\n%s\nof\n%s", seed, again.Diff(), text)
		}
		remove(t, in)
	}
}
