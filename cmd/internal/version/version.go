// Package version says which build of mailbag is running.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the Makefile: -ldflags "-X mailbag/cmd/internal/version.version=1.2.3".
var version string

// String returns the version that the build was given; without one, the revision that Go found in
// the working tree; without that, "unknown".
func String() string {
	if version != "" {
		return version
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// Line is what --version of the named program prints.
func Line(program string) string {
	return fmt.Sprintf("%s %s (%s %s/%s)", program, String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
