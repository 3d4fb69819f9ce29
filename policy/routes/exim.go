package routes

import (
	"cmp"
	"fmt"
	"strconv"

	"mailbag/meter"
)

// Exim returns the tables for Exim, which looks for all that it needs under a recipient's domain.
func Exim(d *meter.Directory) []Table { return []Table{{Routes, ways(d, eximWay)}} }

// HeldQueue is the named queue in which Exim keeps what waits for turns.
const HeldQueue = "mailbag"

// eximWay is the way of an account's mail as ${extract{name}{...}} reads it. Each value is a word of letters, digits,
// dots, hyphens and colons, or "", without which Exim would take the next name for the value.
func eximWay(a *meter.Account, _ string) string {
	way := func(transport, queue, verify string) string {
		return fmt.Sprintf("transport=%s queue=%s account=%s verify=%s", transport, queue, a.Name, verify)
	}
	const nowhere = `""`
	switch {
	case a.Held():
		return way("turn", HeldQueue, "no")
	case a.Mode == meter.POP3:
		return way("pop", nowhere, "no")
	}
	verify := "no"
	if a.Recipients == meter.VerifiedRecipient {
		verify = "yes"
	}
	level := meter.TLSOpportunistic
	if a.TLS.Mandatory() {
		level = a.TLS
	}
	if a.Host == "" {
		return way("mx", nowhere, verify) + " tls=" + string(level)
	}
	host, err := meter.ParseHost(a.Host)
	if err != nil {
		return way("none", nowhere, "no")
	}
	return way("relay", nowhere, verify) + " tls=" + string(level) + " host=" + host.Name + " port=" + strconv.Itoa(cmp.Or(host.Port, 25))
}
