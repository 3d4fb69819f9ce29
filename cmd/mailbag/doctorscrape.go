package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"mailbag/cmd/internal/daemon"
	"mailbag/cmd/internal/settings"
)

// examineMetrics looks at those that tell of trouble.
func (p *patient) examineMetrics(ctx context.Context, name string, at settings.Address) []diagnosis {
	if at.IsZero() {
		return nil
	}
	program := "mailbag-" + name
	doubtful := func(err error) []diagnosis {
		return []diagnosis{{Part: name, Result: doubt, Text: fmt.Sprintf("the metrics of %s cannot be had at %s: %v", program, at, err), Remedy: "see that no other program has the port, and: journalctl -u " + program}}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.Address+"/metrics", nil)
	if err != nil {
		return doubtful(err)
	}
	var client http.Client
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return doubtful(errors.Unwrap(err))
	}
	defer response.Body.Close()
	sums := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		metric, value, _ := strings.Cut(lines.Text(), " ")
		metric, _, _ = strings.Cut(metric, "{")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			sums[metric] += n
		}
	}
	if response.StatusCode != http.StatusOK {
		return doubtful(errors.New(response.Status))
	}
	if err := lines.Err(); err != nil {
		return doubtful(err)
	}
	var found []diagnosis
	remedy := "see: journalctl -u " + program
	if available, ok := sums["mailbag_ledger_available"]; ok && available == 0 {
		found = append(found, diagnosis{Part: name, Result: illness, Text: program + " cannot use the ledger, and defers the accounts' mail", Remedy: remedy, after: []cause{noLedger, noSetup, fullDisk}})
	}
	if current, ok := sums["mailbag_tables_current"]; ok && current == 0 {
		found = append(found, diagnosis{Part: name, Result: illness, Text: "the tables that the MTA reads are not those of the accounts", Remedy: remedy, after: []cause{noLedger, noSetup, fullDisk}})
	}
	return append(found, p.compareSettings(name, sums)...)
}

// compareSettings tells a daemon that runs by other settings than the file has now.
func (p *patient) compareSettings(name string, shown map[string]float64) []diagnosis {
	program := "mailbag-" + name
	reload, restart := p.settings.Hashes(program)
	differs := func(metric string, want float64) bool { got, ok := shown[metric]; return ok && got != want }
	remedy := ""
	switch { // a restart is a reload, too
	case differs(daemon.RestartHash, restart):
		remedy = "restart"
	case differs(daemon.ReloadHash, reload):
		remedy = "reload"
	default:
		return nil
	}
	return []diagnosis{{Part: name, Result: doubt, Text: program + " goes by other settings than those of the file", Remedy: fmt.Sprintf("run: systemctl %s %s", remedy, program)}}
}
