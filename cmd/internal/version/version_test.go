package version

import (
	"runtime"
	"strings"
	"testing"
)

func TestVersionLineNamesProgramVersionAndGo(t *testing.T) {
	t.Parallel()
	line := Line("mailbag-policyd")
	for _, want := range []string{"mailbag-policyd ", String(), runtime.Version()} {
		if want == "" || !strings.Contains(line, want) {
			t.Errorf("%q lacks %q", line, want)
		}
	}
}
