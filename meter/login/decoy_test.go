package login

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
)

func TestDecoyIsTheSameInEveryProcessAndMatchesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mailbag.db")
	load := func(path string) *meter.Directory {
		t.Helper()
		l, err := meter.Open(t.Context(), path, meter.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d, err := l.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := load(path)
	first := decoy(d, "nobody")
	if diff := cmp.Diff(first, decoy(load(path), "nobody")); diff != "" {
		t.Errorf("another process has another decoy:\n%s", diff)
	}
	real, _ := verifiers()
	if len(first.Salt) != len(real.Salt) || first.Iterations != real.Iterations || len(first.StoredKey) != len(real.StoredKey) || len(first.CRAMMD5) != len(real.CRAMMD5) {
		t.Errorf("a decoy can be told from a verifier: %+v", first)
	}
	if bytes.Equal(first.Salt, decoy(d, "somebody").Salt) {
		t.Error("two log-ins have the same salt")
	}
	if bytes.Equal(first.Salt, decoy(load(filepath.Join(t.TempDir(), "mailbag.db")), "nobody").Salt) {
		t.Error("two ledgers have the same salt")
	}
	for _, password := range []string{"", "secret"} {
		if matches(first, password) {
			t.Errorf("the decoy matches %q", password)
		}
	}
}
