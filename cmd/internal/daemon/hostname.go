package daemon

import (
	"context"
	"fmt"
	"os"

	"mailbag/cmd/internal/mta"
)

// Hostname is the name that greets customers: the one of the settings, else the MTA's, else the machine's.
func Hostname(ctx context.Context, configured string, system mta.System) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if id, err := system.Identity(ctx); err == nil {
		return id.Hostname, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this machine's name cannot be found out; set hostname in the settings: %w", err)
	}
	return name, nil
}
