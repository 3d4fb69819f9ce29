package postfix

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A formerWiring is one line of main.cf as it was, and as a mailbag that answered Postfix's lookups wrote it.
type formerWiring struct{ name, was, ours string }

const lookup = "socketmap:unix:private/mailbag-lookup:"

var formerWirings = []formerWiring{
	{"relay_domains", "own.example", "own.example, " + lookup + "relay-domains"},
	{"transport_maps", "inline:{x=y}", lookup + "transport, inline:{x=y}"},
	{"relay_recipient_maps", "inline:{a=b}", "inline:{a=b}, " + lookup + "relay-recipients"},
	{"smtpd_recipient_restrictions", "reject_unauth_destination, reject", "reject_unauth_destination, reject, reject_unlisted_recipient, check_policy_service unix:private/mailbag-policy"},
	{"smtpd_end_of_data_restrictions", "", "check_policy_service { unix:private/mailbag-policy, try_limit=10 }"},
	{"smtpd_etrn_restrictions", "", "check_policy_service unix:private/mailbag-policy, reject"},
	{"smtpd_milters", "inet:127.0.0.1:1", "inet:127.0.0.1:1, { unix:private/mailbag-milter, default_action=tempfail, protocol=6 }"},
	{"fast_flush_domains", "other.example", "!" + lookup + "held-domains, other.example, " + lookup + "relay-domains"},
	{"smtp_tls_policy_maps", "inline:{c=may}", lookup + "tls-policy, inline:{c=may}"},
}

func TestWhatAnOlderMailbagWroteIsReplaced(t *testing.T) {
	t.Parallel()
	for name, remembered := range map[string]bool{"former values known": true, "former values lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, wired, old := "", "", former{Main: map[string]formerLine{}}
			for _, l := range formerWirings {
				if l.was != "" {
					plain += l.name + " = " + l.was + "\n"
				}
				wired += l.name + " = " + l.ours + "\n"
				old.Main[l.name] = formerLine{l.was != "", l.was, l.ours}
			}
			const compatible = "compatibility_level = 3.6\n"
			in, _ := configured(t, compatible+wired)
			if remembered {
				text, err := json.Marshal(old)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(in.ConfigDir, FormerFile), text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fresh, _ := configured(t, compatible+plain)
			names := []string{"smtpd_restriction_classes", "non_smtpd_milters", recipientClass, etrnClass, milterMacro, heldFlush}
			for _, l := range formerWirings {
				names = append(names, l.name)
			}
			before := mainCf(t, fresh, names...)
			setUp(t, in, longHold())
			setUp(t, fresh, longHold())
			if diff := cmp.Diff(mainCf(t, fresh, names...), mainCf(t, in, names...)); diff != "" {
				t.Errorf("after an upgrade the wiring is not that of a fresh setup: %s", diff)
			}
			remove(t, in)
			if diff := cmp.Diff(before, mainCf(t, in, names...)); diff != "" {
				t.Errorf("a removal after an upgrade does not restore: %s", diff)
			}
		})
	}
}
