package main

import (
	"context"

	"mailbag/cmd/internal/postfix"
)

// postfixDown says why no mail comes in or goes out.
func (p *patient) postfixDown(err error) diagnosis {
	d := diagnosis{Part: "postfix", Result: illness, Text: "Postfix does not run: no mail is accepted, and none is delivered", Remedy: "run: postfix start", cause: noPostfix, after: []cause{takenPort}}
	if p.units["postfix.service"] != nil { // which may be active though Postfix was stopped by itself
		d.Remedy = "run: systemctl restart postfix; why it does not run: journalctl -t postfix/master -t postfix"
	}
	if err != nil {
		d.Text, d.Remedy = "it cannot be seen whether Postfix runs: "+err.Error(), "run: postfix status"
	}
	return d
}

// examinePostfix has Postfix look at itself, and compares it with what the accounts need.
func (p *patient) examinePostfix(ctx context.Context) []diagnosis {
	if p.postfix == nil || !p.postfix.Wired {
		return nil // of this enough was said
	}
	sound := begin(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.in.Sound(ctx) })
	w := postfix.Wiring{Tables: postfix.Tables(p.settings.Policy.Tables)}
	var away error
	if p.desk != nil {
		w, away = p.desk.wiring(ctx)
	}
	findings, err := p.in.Check(ctx, w)
	_, broken := sound()
	if ctx.Err() != nil { // as where it cannot be read in time
		return []diagnosis{late("postfix", p.pace.all)}
	}
	if away != nil {
		return []diagnosis{p.ledgerAway(away)}
	}
	if broken != nil {
		return []diagnosis{{Part: "postfix", Result: illness, Text: broken.Error(), Remedy: "correct Postfix's configuration; postfix check looks at it"}}
	}
	if err != nil {
		return []diagnosis{{Part: "postfix", Result: illness, Text: err.Error(), Remedy: "run as root: mailbag postfix check"}}
	}
	var found []diagnosis
	for _, f := range findings {
		d := diagnosis{Part: "postfix", Text: f.Text, Remedy: f.Remedy}
		switch f.Severity {
		case postfix.Fault:
			d.Result, d.cause = illness, miswired
		case postfix.Warning:
			d.Result = doubt
		default:
			continue
		}
		switch f.Remedy {
		case postfix.StartPolicyd:
			d.after = []cause{down("mailbag-policyd")}
		case postfix.StepIn:
			d.cause, d.after = standsAside, []cause{down("mailbag-policyd")}
			d.Remedy = "run: mailbag postfix step-in" // where this is told mailbag-policyd answers
		}
		if p.desk == nil && d.Result == illness { // what the accounts need is not known
			d.after = append(d.after, noLedger)
		}
		found = append(found, d)
	}
	if found == nil && p.running {
		found = []diagnosis{{Part: "postfix", Result: well, Text: "runs, and is as mailbag needs it"}}
	}
	return found
}
