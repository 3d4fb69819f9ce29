package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"mailbag/cmd/internal/settings"
)

// A presented is the certificate that customers get at a front; nil: none is offered there.
type presented struct {
	front
	leaf *x509.Certificate
}

// comparePresented looks whether customers get the certificate that is in its files.
func (p *patient) comparePresented(program string, shown []presented) []diagnosis {
	pair, err := tls.LoadX509KeyPair(p.settings.TLS.Certificate, p.settings.TLS.Key)
	if err != nil {
		return nil // of this enough is said where the files are looked at
	}
	var found []diagnosis
	remedy := fmt.Sprintf("see: journalctl -u %s; new files are read at once, other names of them with: systemctl reload %[1]s", program)
	for _, s := range shown {
		switch {
		case s.at.Network == "unix":
		case s.leaf == nil:
			found = append(found, diagnosis{Part: "certificate", Result: illness, Text: fmt.Sprintf("%s offers no TLS at %s", program, s.at), Remedy: remedy, after: []cause{noFile(p.settings.TLS.Key), noFile(p.settings.TLS.Certificate)}})
		case !s.leaf.Equal(pair.Leaf):
			found = append(found, diagnosis{Part: "certificate", Result: doubt, Text: fmt.Sprintf("%s shows another certificate at %s than that in %s: one for %s until %s",
				program, s.at, p.settings.TLS.Certificate, s.leaf.DNSNames, moment(s.leaf.NotAfter.In(p.settings.Billing.Location))), Remedy: remedy})
		}
	}
	return found
}

func (p *patient) examineCertificate(context.Context) []diagnosis {
	hostname := p.settings.Hostname
	if hostname == "" && p.identity != nil {
		hostname = p.identity.Hostname
	}
	return []diagnosis{examineCertificate(p.settings.TLS, hostname, p.now())}
}

// renewal is how long before its end a certificate should have been replaced.
const renewal = 14 * 24 * time.Hour

func examineCertificate(files settings.TLS, hostname string, now time.Time) diagnosis {
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return diagnosis{Part: "certificate", Result: illness, Text: "TLS is not offered: " + err.Error(), Remedy: "put a certificate chain and its key there; README.md shows how certbot does it"}
	}
	leaf, left := pair.Leaf, pair.Leaf.NotAfter.Sub(now)
	d := diagnosis{Part: "certificate", Result: well, Text: fmt.Sprintf("for %s until %s", hostname, moment(leaf.NotAfter.In(now.Location()))),
		readings: []reading{{name: "mailbag_certificate_end_timestamp_seconds", value: float64(leaf.NotAfter.Unix())}}}
	notSo := func(result verdict, text, remedy string) { d.Result, d.Text, d.Remedy = result, text, remedy }
	const renew = "renew it; the daemons see new files by themselves"
	switch {
	case left <= 0:
		notSo(illness, fmt.Sprintf("%s ended on %s", files.Certificate, moment(leaf.NotAfter.In(now.Location()))), renew)
	case bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		notSo(doubt, files.Certificate+" signs itself, so that customers cannot verify it", "replace it; README.md shows how certbot does it")
	case left < renewal:
		notSo(doubt, fmt.Sprintf("%s ends on %s", files.Certificate, moment(leaf.NotAfter.In(now.Location()))), renew)
	default:
		if err := leaf.VerifyHostname(hostname); err != nil {
			notSo(doubt, fmt.Sprintf("%s does not fit the name by which the daemons greet: %v", files.Certificate, err), "get one for "+hostname+", or set hostname in the settings")
		}
	}
	return d
}
