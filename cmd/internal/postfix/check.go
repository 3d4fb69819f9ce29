package postfix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"mailbag/cmd/internal/mta"
)

// Remedies by which findings that have one cause are told.
const (
	runSetup       = "run: mailbag postfix setup"
	setPermissions = "run: postfix set-permissions; if that changes nothing, correct the owner in mailbag-policyd.socket and mailbag-milter.socket, and start them again"
)

func fault(text, remedy string) mta.Finding { return finding(mta.Fault, text, remedy) }

func warning(text, remedy string) mta.Finding { return finding(mta.Warning, text, remedy) }

func hint(text, remedy string) mta.Finding { return finding(mta.Hint, text, remedy) }

func finding(s mta.Severity, text, remedy string) mta.Finding {
	return mta.Finding{Severity: s, Text: text, Remedy: remedy}
}

// Check compares this Postfix with the wiring and names what is missing or works against it, faults first. The error
// is as with Plan. Needs root.
func (in Instance) Check(ctx context.Context, w mta.Needs) ([]mta.Finding, error) {
	c, err := in.inspect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := in.plan(ctx, c, w, false)
	if err != nil {
		return nil, err
	}
	conflicts, err := in.conflicts(ctx, c.expanded, w.Domains)
	if err != nil {
		return nil, err
	}
	found := missing(p)
	found = append(found, asideSince(c)...)
	found = append(found, order(c, tables(w.Tables))...)
	found = append(found, tap(c)...)
	found = append(found, overrides(c)...)
	found = append(found, reinjection(c)...)
	found = append(found, encryption(c, w)...)
	if err := tables(w.Tables).Complete(); err != nil {
		found = append(found, fault(err.Error(), runSetup+"; postfix reload")) // smtpd(8) remembers what it could not open
	}
	found = append(found, sockets(ctx, c)...)
	running, err := in.Running(ctx)
	if err != nil {
		return nil, err
	}
	if running {
		found = append(found, orphans(c)...)
	}
	found = append(found, inherited(c)...)
	found = append(found, surroundings(c)...)
	for _, k := range conflicts {
		found = append(found, fault(k.String(), "take the domain out of "+k.Parameter+", or remove it from its account"))
	}
	rank := []mta.Severity{mta.Fault, mta.Warning, mta.Hint}
	slices.SortStableFunc(found, func(a, b mta.Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	})
	return found, nil
}

// missing names what setup would change.
func missing(p *plan) []mta.Finding {
	var out []mta.Finding
	for _, c := range p.Changes {
		text := fmt.Sprintf("%s: %s is not what mailbag needs: it is %s and should be %s", c.File, c.Name, c.Old, c.New)
		out = append(out, fault(text, runSetup))
	}
	return out
}

// String is for messages.
func (l Line) String() string {
	if !l.Set {
		return "not set"
	}
	return strconv.Quote(l.Text)
}

// answerTime is what Check gives mailbag-policyd, which systemd may have to start first.
const answerTime = 3 * time.Second

// sockets asks mailbag-policyd as smtpd and cleanup do.
func sockets(ctx context.Context, c configuration) []mta.Finding {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var out []mta.Finding
	for _, s := range asked {
		refused := map[string]string{PolicySocket: "all mail for the accounts' domains", MilterSocket: "all mail"}[s.name]
		if err := s.ask(ctx, c); err != nil {
			remedy := mta.StartPolicyd
			if errors.Is(err, fs.ErrPermission) {
				remedy = setPermissions
			}
			out = append(out, fault(fmt.Sprintf("%v; Postfix answers 451 to %s without it", err, refused), remedy))
		}
	}
	return out
}

// orphans names our transports whose sockets somebody removed while Postfix runs: master listens on, and nobody
// finds it any more. A reload lets it keep what it has.
func orphans(c configuration) []mta.Finding {
	var out []mta.Finding
	for _, name := range []string{turnTransport, popTransport} {
		if _, ok := c.service(name + "/unix"); !ok {
			continue
		}
		path := filepath.Join(c.expanded["queue_directory"], "private", name)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			out = append(out, fault(fmt.Sprintf("the transport %s is in master.cf, and its socket %s is gone: its mail stays in the queue", name, path),
				"stop and start Postfix; a reload does not make the socket again"))
		}
	}
	return out
}

// surroundings names what is not our wiring but matters to held and relayed mail.
func surroundings(c configuration) []mta.Finding {
	var out []mta.Finding
	if _, ok := c.service("relay/unix"); !ok {
		out = append(out, fault("master.cf: there is no transport relay, by which mail of backup accounts goes out",
			"restore the line: relay unix - - y - - smtp"))
	}
	if slices.Contains(texts(c.expanded["parent_domain_matches_subdomains"]), "transport_maps") {
		out = append(out, fault("main.cf: parent_domain_matches_subdomains has transport_maps: mail for subdomains of an account's domain takes the account's way",
			"take transport_maps out of it, and write .example.com in your own table where example.com is to stand for its subdomains"))
	}
	if d, err := period(c.expanded["delay_warning_time"]); err == nil && d > 0 {
		out = append(out, warning("main.cf: delay_warning_time = "+c.expanded["delay_warning_time"]+": senders are told that their mail is delayed while it is held for a customer",
			"set it to 0h, unless that is meant"))
	}
	return out
}
