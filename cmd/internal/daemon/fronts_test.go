package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
)

// openFronts opens a unix socket for each name, in one directory.
func openFronts(t *testing.T, names ...string) (*Fronts, string) {
	t.Helper()
	dir := closedDirectory(t)
	var fronts []Front
	for _, name := range names {
		fronts = append(fronts, Front{Name: name, At: []settings.Address{unixAddress(filepath.Join(dir, name))}})
	}
	f, err := OpenFronts(t.Context(), "postfix", quiet(), fronts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, dir
}

// accept serves a listener until it is closed.
func accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		c.Close()
	}
}

func TestFrontsAreServedUntilTheStop(t *testing.T) {
	t.Parallel()
	f, dir := openFronts(t, "one", "two")
	f.Serve("one", accept)
	f.Serve("two", accept)
	for _, name := range []string{"one", "two"} {
		if !answers(filepath.Join(dir, name)) || len(f.Listeners(name)) != 1 {
			t.Errorf("nobody answers on %s", name)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := f.Wait(ctx); err != nil {
		t.Error(err)
	}
	f.Close()
	if answers(filepath.Join(dir, "one")) {
		t.Error("the socket is still open")
	}
}

func TestFrontThatCannotBeServedIsNamed(t *testing.T) {
	t.Parallel()
	f, _ := openFronts(t, "one", "two")
	f.Serve("one", accept)
	f.Serve("two", func(net.Listener) error { return errors.New("out of order") })
	if err := f.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "the two socket") || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("the error is %v", err)
	}
}

func TestNoFrontIsOpenWhereOneCannotBe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(closedDirectory(t), "one")
	_, err := OpenFronts(t.Context(), "postfix", quiet(), Front{Name: "one", At: []settings.Address{unixAddress(path)}},
		Front{Name: "two", At: []settings.Address{unixAddress(filepath.Join(t.TempDir(), "missing", "two"))}})
	if err == nil || !strings.Contains(err.Error(), "no socket for two") {
		t.Errorf("the error is %v", err)
	}
	if answers(path) {
		t.Error("the first socket is left open")
	}
}

func TestNameOfTheSettingsGreetsFirst(t *testing.T) {
	t.Parallel()
	if name, err := Hostname(t.Context(), "odmr.provider.example", postfix.Instance{}); err != nil || name != "odmr.provider.example" {
		t.Errorf("the name is %q, %v", name, err)
	}
	if name, err := Hostname(t.Context(), "", postfix.Instance{}); err != nil || name == "" {
		t.Errorf("without one in the settings the name is %q, %v", name, err)
	}
}
