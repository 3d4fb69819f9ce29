package host

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
	return s, system.Words().Name, err
}

func TestSettingsThatAreMistakenHideNoMTA(t *testing.T) {
	t.Parallel()
	_, want, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if s, name, err := load(t, "nonsense = 1\n"); err == nil || s != nil || name != want {
		t.Errorf("got %v and %q with %v, want %q", s, name, err, want)
	}
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

func TestMTAThatIsNotKnownIsRefused(t *testing.T) {
	t.Parallel()
	if _, _, err := load(t, "mta = 'sendmail'\n"); err == nil || !strings.Contains(err.Error(), `"sendmail" is none of`) {
		t.Errorf("the settings are read with %v", err)
	}
}

func TestTheMTAIsTheOneThatTheSettingsName(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{"postfix": "Postfix", "exim": "Exim"} {
		if _, name, err := load(t, "mta = '"+setting+"'\n"); err != nil || name != want {
			t.Errorf("%s is %q, %v", setting, name, err)
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

func TestEveryMTAHasItsWordsAndPlaces(t *testing.T) {
	t.Parallel()
	optional := []string{"Lingers", "Milter", "Helper"}
	for _, k := range known {
		words := k.system.Words()
		if words.Refuses == nil {
			t.Errorf("%s does not say what it refuses", words.Name)
		}
		for _, all := range []reflect.Value{reflect.ValueOf(words), reflect.ValueOf(k.system.Places())} {
			for i := range all.NumField() {
				name := all.Type().Field(i).Name
				if all.Field(i).Kind() == reflect.String && all.Field(i).String() == "" && !slices.Contains(optional, name) {
					t.Errorf("%s has no %s", words.Name, name)
				}
			}
		}
	}
}
