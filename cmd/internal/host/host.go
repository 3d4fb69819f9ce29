// Package host is the one place that knows which MTAs there are: by the settings it makes the one beside which mailbag runs
// on this machine.
package host

import (
	"os/exec"
	"path/filepath"
	"slices"

	"mailbag/cmd/internal/exim"
	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
)

// known are the MTAs that mailbag can run beside. The first is meant where none is installed.
var known = []struct {
	system   mta.System
	programs []string // one of which is there where it is installed
}{
	{postfix.Instance{}, []string{"postconf"}},
	{exim.Instance{}, []string{"exim4", "exim"}},
}

// Load reads the settings as [settings.Load] does, and tells which MTA they mean. What the file does not say of the places
// where the two meet is what that MTA has. With an error comes the MTA that is installed, for what is to be done without settings.
func Load(file string) (*settings.Settings, mta.System, error) {
	s, err := settings.Load(file)
	if err != nil {
		return nil, choose(settings.AutoMTA), err
	}
	system := choose(s.MTA)
	Fill(s, system)
	return s, system, nil
}

// choose is the MTA that a valid setting means.
func choose(setting string) mta.System {
	for _, k := range known {
		if setting == k.system.Words().Command || setting == settings.AutoMTA && slices.ContainsFunc(k.programs, installed) {
			return k.system
		}
	}
	return known[0].system
}

// installed reports whether there is a program. sbin is not on everybody's path, and not on that of a daemon.
func installed(program string) bool {
	for _, path := range []string{filepath.Join("/usr/sbin", program), filepath.Join("/usr/local/sbin", program), program} {
		if _, err := exec.LookPath(path); err == nil {
			return true
		}
	}
	return false
}

// Fill has the settings name the places of an MTA where they name none.
func Fill(s *settings.Settings, system mta.System) {
	at := system.Places()
	fill(&s.Policy.Listen, at.Policy)
	fill(&s.Policy.Milter, at.Milter)
	if s.Policy.Tables == "" {
		s.Policy.Tables = at.Tables
	}
}

func fill(a *settings.Address, path string) {
	if a.IsZero() && path != "" {
		*a = settings.Address{Network: "unix", Address: path}
	}
}
