package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/cmd/internal/settings"
)

func load(t *testing.T, text string) (*settings.Settings, string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mailbag.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, system, err := Load(file)
	if err != nil {
		return nil, "", err
	}
	return s, system.Words().Name, nil
}

func TestPlacesAreTheMTAsWhereTheFileNamesNone(t *testing.T) {
	t.Parallel()
	s, name, err := load(t, "mta = 'postfix'\n[policy]\nmilter = 'unix:/run/milter'\n")
	if err != nil || name != "Postfix" {
		t.Fatal(name, err)
	}
	if s.Policy.Milter.Address != "/run/milter" {
		t.Errorf("the milter is at %s", s.Policy.Milter)
	}
	if s.Policy.Listen.String() != "unix:/var/spool/postfix/private/mailbag-policy" || s.Policy.Tables != "/var/lib/mailbag/postfix" {
		t.Errorf("the policy service is at %s, the tables are in %s", s.Policy.Listen, s.Policy.Tables)
	}
}

func TestMTAThatIsNotKnownIsRefusedWithTheFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"mta = 'exim'\n": `cannot run beside "exim"`, "mta = 'sendmail'\n": `"sendmail" is none of`} {
		if _, _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "mailbag.toml") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// On a machine without any MTA the commands say so of Postfix.
func TestThereIsAlwaysAnMTAToAsk(t *testing.T) {
	t.Parallel()
	if _, name, err := load(t, ""); err != nil || name == "" {
		t.Errorf("%q, %v", name, err)
	}
}
