package exim

import "testing"

func TestAnEximIsSecludedWhereItListensOnTheLoopbackInterfaceAlone(t *testing.T) {
	t.Parallel()
	for interfaces, want := range map[string]bool{
		"":                            false,
		"127.0.0.1":                   true,
		"127.0.0.1.2525":              true,
		"127.0.0.1 ; ::1":             false, // one name, which is none
		"<; 127.0.0.1 ; ::1":          true,
		"<; 127.0.0.1 ; [::1]:26":     true,
		"127.0.0.1 : ::::1":           true,
		"127.0.0.1:192.0.2.1":         false,
		"<; 127.0.0.1 ; 2001:db8::1":  false,
		"<; ::0 ; 0.0.0.0":            false,
		"<; 127.0.0.1 ; 192.0.2.1.25": false,
		"<; ::ffff:192.0.2.1":         false,
	} {
		if got := secluded(interfaces); got != want {
			t.Errorf("%q: %t", interfaces, got)
		}
	}
}
