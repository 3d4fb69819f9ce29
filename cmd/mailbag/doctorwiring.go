package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailbag/cmd/internal/mta"
)

// mtaDown says why no mail comes in or goes out.
func (p *patient) mtaDown(err error) diagnosis {
	d := diagnosis{Part: p.words.Command, Result: illness, Text: p.words.Name + " does not run: no mail is accepted, and none is delivered", Remedy: "run: " + p.words.Start, cause: noMTA, after: []cause{takenPort}}
	if p.units[p.words.Unit] != nil { // which may be active though the MTA was stopped by itself
		d.Remedy = fmt.Sprintf("run: systemctl restart %s; why it does not run: %s", strings.TrimSuffix(p.words.Unit, ".service"), p.words.Log)
	}
	if err != nil {
		d.Text, d.Remedy = fmt.Sprintf("it cannot be seen whether %s runs: %v", p.words.Name, err), "run: "+p.words.Status
	}
	return d
}

// examineMTA compares the MTA, which looks at itself first, with what the accounts need.
func (p *patient) examineMTA(ctx context.Context) []diagnosis {
	if p.identity == nil || !p.identity.Wired {
		return nil // of this enough was said
	}
	part := p.words.Command
	needs := needsOf(p.settings)
	var away error
	if p.desk != nil {
		needs, away = p.desk.needs(ctx)
	}
	findings, err := p.mta.Check(ctx, needs)
	if ctx.Err() != nil { // as where it cannot be read in time
		return []diagnosis{late(part, p.pace.all)}
	}
	if away != nil {
		return []diagnosis{p.ledgerAway(away)}
	}
	if errors.Is(err, mta.ErrBroken) {
		return []diagnosis{{Part: part, Result: illness, Text: err.Error(), Remedy: fmt.Sprintf("correct %s's configuration; %s looks at it", p.words.Name, p.words.Test)}}
	}
	if err != nil {
		return []diagnosis{{Part: part, Result: illness, Text: err.Error(), Remedy: fmt.Sprintf("run as root: mailbag %s check", part)}}
	}
	var found []diagnosis
	for _, f := range findings {
		d := diagnosis{Part: part, Text: f.Text, Remedy: f.Remedy}
		switch f.Severity {
		case mta.Fault:
			d.Result, d.cause = illness, miswired
		case mta.Warning:
			d.Result = doubt
		default:
			continue
		}
		switch f.Remedy {
		case "run: " + p.words.Start:
			d.after = []cause{noMTA}
		case mta.StartPolicyd:
			d.after = []cause{down("mailbag-policyd")}
		case p.words.StepIn():
			d.cause, d.after = standsAside, []cause{down("mailbag-policyd")}
			d.Remedy = fmt.Sprintf("run: mailbag %s step-in", part) // where this is told mailbag-policyd answers
		}
		if p.desk == nil && d.Result == illness { // what the accounts need is not known
			d.after = append(d.after, noLedger)
		}
		found = append(found, d)
	}
	if found == nil && p.running {
		found = []diagnosis{{Part: part, Result: well, Text: "runs, and is as mailbag needs it"}}
	}
	return found
}
