package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

// maxTransfer bounds the file, in octets: ten million listed recipients fit.
const maxTransfer = 1 << 30

// readImport reads a file whole. What an export wrote as JSON is known by its name or its beginning.
func (c *console) readImport(name string) (shown string, text []byte, isJSON bool, err error) {
	in := c.in
	if name == "-" {
		name = "stdin"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return name, nil, false, err
		}
		defer f.Close()
		in = f
	}
	if text, err = io.ReadAll(io.LimitReader(in, maxTransfer+1)); err != nil {
		return name, nil, false, err
	}
	isJSON = isNamed(name, ".json") || bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
	switch {
	case isJSON && len(text) > maxTransfer:
		err = fmt.Errorf("%s is larger than 1 GiB", name)
	case !isJSON && len(text) > maxCSV:
		err = fmt.Errorf("%s is larger than 64 MiB; make several files of it", name)
	}
	return name, text, isJSON, err
}

// isNamed reports whether a file's name ends so, in capitals or not.
func isNamed(name, ending string) bool { return strings.EqualFold(filepath.Ext(name), ending) }

// parseTransfers reads the text of a file of that name strictly: what is not understood could be what keeps mail out. It
// returns all that is wrong, or else the accounts and the plans.
func parseTransfers(name string, text []byte) ([]meter.Transfer, []*meter.Plan, []error) {
	all, plans, faults := transfersIn(text)
	if len(faults) == 0 {
		return all, plans, nil
	}
	told := make([]error, 0, len(faults))
	line, at := 1, 0
	for i, f := range faults {
		if i < shownFaults { // that of others is never shown
			if f.at < at {
				line, at = 1, 0
			}
			line += bytes.Count(text[at:f.at], []byte("\n"))
			at = f.at
		}
		told = append(told, fmt.Errorf("%s:%d: %w", name, line, f.err))
	}
	return nil, nil, told
}

func transfersIn(text []byte) ([]meter.Transfer, []*meter.Plan, []fault) {
	const foreign = `it is not what "mailbag account export" writes: %w`
	whole, broken := sound(text)
	if broken != nil {
		return nil, nil, []fault{{broken.at, fmt.Errorf(foreign, broken.err)}}
	}
	var document struct {
		Version  int         `json:"mailbag_accounts"`
		Plans    []jsonValue `json:"plans" older:"lacks"`
		Accounts []jsonValue `json:"accounts"`
	}
	wrong := strictly(whole, &document)
	switch {
	case len(wrong) > 0:
		for i, f := range wrong {
			wrong[i].err = fmt.Errorf(foreign, f.err)
		}
		return nil, nil, wrong
	case document.Version != transferVersion:
		return nil, nil, []fault{{0, fmt.Errorf("it is of version %d, and this mailbag reads %d", document.Version, transferVersion)}}
	}
	plans, faults := plansIn(document.Plans)
	planned := map[string]bool{"": true}
	for _, p := range plans {
		planned[p.Name] = true
	}
	var all []meter.Transfer
	named, owners := map[string]bool{}, map[string]string{}
	for i, v := range document.Accounts {
		var p transferAccount
		wrong := strictly(v, &p)
		who := fmt.Sprintf("the account %q", p.Name)
		if p.Name == "" {
			who = fmt.Sprintf("account %d of the file", i+1)
		}
		t, errs := p.unpacked()
		if len(wrong)+len(errs) == 0 { // else faults would follow from faults
			errs = t.Faults()
		}
		for _, err := range errs {
			wrong = append(wrong, fault{v.at, err})
		}
		if p.Name != "" && named[p.Name] {
			wrong = append(wrong, fault{v.at, errors.New("the file has it twice")})
		}
		named[p.Name] = true
		if !planned[p.Plan] {
			wrong = append(wrong, fault{v.at, fmt.Errorf("its plan %q is none of the file's", p.Plan)})
		}
		for _, domain := range t.Domains {
			if owner, found := owners[domain]; found {
				wrong = append(wrong, fault{v.at, fmt.Errorf("the file gives its domain %s to %s already", domain, owner)})
			}
			owners[domain] = p.Name
		}
		for _, f := range wrong {
			faults = append(faults, fault{f.at, fmt.Errorf("%s: %w", who, errors.New(sentence(f.err)))})
		}
		all = append(all, t)
	}
	return all, plans, faults
}

// plansIn reads the plans of a file.
func plansIn(values []jsonValue) (plans []*meter.Plan, faults []fault) {
	named := map[string]bool{}
	for _, v := range values {
		var p transferPlan
		wrong := strictly(v, &p)
		terms, errs := p.terms()
		plan := &meter.Plan{Name: p.Name, Terms: terms}
		if len(wrong)+len(errs) == 0 {
			if err := plan.Validate(); err != nil {
				errs = append(errs, err)
			}
		}
		if named[p.Name] {
			errs = append(errs, errors.New("the file has it twice"))
		}
		named[p.Name] = true
		for _, err := range errs {
			wrong = append(wrong, fault{v.at, err})
		}
		for _, f := range wrong {
			faults = append(faults, fault{f.at, fmt.Errorf("the plan %q: %w", p.Name, errors.New(sentence(f.err)))})
		}
		plans = append(plans, plan)
	}
	return plans, faults
}

// unpacked is the account that the file has, as far as it can be understood, and what of it cannot.
func (p transferAccount) unpacked() (meter.Transfer, []error) {
	terms, faults := p.terms()
	t := meter.Transfer{
		Account: meter.Account{
			Name: p.Name, Customer: p.Customer, Note: p.Note, Plan: p.Plan, Mode: p.Mode, Suspended: p.Suspended, Host: p.Host, TLS: p.TLS, Recipients: p.Recipients,
			Terms: terms, Contact: p.Contact, Copies: p.Copies, CatchAll: p.CatchAll, Quota: p.Quota, CRAMMD5: p.CRAMMD5,
		},
		Listed: p.Listed, Mailboxes: p.Mailboxes, Maildirs: p.Maildirs, Verifiers: map[string]*meter.Verifier{},
	}
	if p.Hold < 0 || p.Hold > int64(meter.MaxHold/time.Second) {
		faults = append(faults, fmt.Errorf("a hold of %d seconds is not 0 to %s", p.Hold, units.FormatDuration(meter.MaxHold)))
	} else {
		t.Hold = time.Duration(p.Hold) * time.Second
	}
	for _, text := range p.Domains {
		domain, err := meter.NormalizeDomain(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.Domains = append(t.Domains, domain)
	}
	for _, text := range p.Networks {
		network, err := parseNetwork(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.Networks = append(t.Networks, network)
	}
	for login, v := range p.Verifiers {
		verifier := meter.Verifier(v)
		t.Verifiers[login] = &verifier
	}
	return t, faults
}
