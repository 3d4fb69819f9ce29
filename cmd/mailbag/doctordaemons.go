package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"mailbag/cmd/internal/settings"
	"mailbag/meter"
	"mailbag/turnd/control"
)

// A front is where a daemon is asked something, as the MTA or a customer would.
type front struct {
	at      settings.Address
	proxies []netip.Addr
	tls     bool   // from the beginning
	socket  string // the unit that holds it
	// ask says what is wrong, and returns the certificate that was shown, where one was.
	ask func(ctx context.Context, at front) (*x509.Certificate, error)
}

// foremost is the first of the addresses: the others are for other kinds of network, which this machine need not have.
func foremost(f front, at []settings.Address) []front {
	if len(at) == 0 {
		return nil
	}
	f.at = at[0]
	return []front{f}
}

func (p *patient) examinePolicyd(ctx context.Context) []diagnosis {
	return p.examineDaemon(ctx, "policyd", p.settings.Policy.Metrics, p.policydFronts())
}

func (p *patient) policydFronts() []front {
	return []front{
		// VRFY, because a recipient of a message would be noted.
		{at: p.settings.Policy.Listen, socket: "mailbag-policyd.socket", ask: packet{
			text: "request=smtpd_access_policy\nprotocol_state=VRFY\nrecipient=postmaster@doctor.invalid\n\n", end: '\n', answer: "action="}.ask},
		// Options that the MTA offers, and the end of the session (SMFIC_OPTNEG and SMFIC_QUIT).
		{at: p.settings.Policy.Milter, socket: "mailbag-milter.socket", ask: packet{
			text: framed("O\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"), end: 'O', answer: "\x00\x00\x00", farewell: framed("Q")}.ask},
	}
}

func (p *patient) examineTurnd(ctx context.Context) []diagnosis {
	odmr := front{proxies: p.settings.Proxies, socket: "mailbag-turnd.socket", ask: p.askTurnd}
	odmrs := odmr
	odmrs.tls, odmrs.socket = true, "mailbag-turnd-tls.socket"
	fronts := slices.Concat(foremost(odmr, p.settings.Turn.Listen), foremost(odmrs, p.settings.Turn.ListenTLS))
	fronts = append(fronts, front{at: p.settings.Turn.Control, socket: "mailbag-turnd-control.socket",
		ask: askControl})
	return append(p.examineDaemon(ctx, "turnd", p.settings.Turn.Metrics, fronts), p.examineRelease(ctx)...)
}

func (p *patient) examinePopd(ctx context.Context) []diagnosis {
	pop3 := front{proxies: p.settings.Proxies, socket: "mailbag-pop3.socket", ask: askPOP3}
	pop3s := front{proxies: p.settings.Proxies, socket: "mailbag-pop3s.socket", tls: true, ask: askPOP3}
	fronts := slices.Concat(foremost(pop3, p.settings.POP.Listen), foremost(pop3s, p.settings.POP.ListenTLS))
	fronts = append(fronts, front{at: p.settings.POP.Deliver, socket: "mailbag-deliver.socket", ask: p.askDelivery})
	return p.examineDaemon(ctx, "popd", p.settings.POP.Metrics, fronts)
}

// examineDaemon asks at all fronts at the same time, and for the metrics.
func (p *patient) examineDaemon(ctx context.Context, name string, metrics settings.Address, fronts []front) []diagnosis {
	program := "mailbag-" + name
	fronts = slices.DeleteFunc(fronts, func(f front) bool { return f.at.IsZero() })
	ports := append(slices.Clone(fronts), front{at: metrics}) // without one of them it does not start
	holders := begin(ctx, func(context.Context) (map[string]holder, error) { return foreignHolders(ports, program), nil })
	var waits []func() (*x509.Certificate, error)
	for _, f := range fronts {
		waits = append(waits, begin(ctx, func(ctx context.Context) (*x509.Certificate, error) { return f.ask(ctx, f) }))
	}
	if p.units[program+".service"].ended() {
		return []diagnosis{p.units.examineEnded(name, fronts)}
	}
	taken, _ := holders()
	var found, doubts []diagnosis
	for _, f := range ports {
		if h, ok := taken[f.at.Address]; ok {
			found = append(found, diagnosis{Part: name, Result: illness, cause: down(program),
				Text:   fmt.Sprintf("%s cannot have %s, which %s has", program, f.at, h),
				Remedy: fmt.Sprintf("stop that program, and %s has the port within seconds; README.md, \"Names, ports and a certificate\", shows how to do without the port", program)})
		}
	}
	var silent []silence
	var shown []presented
	for i, wait := range waits {
		f := fronts[i]
		leaf, err := wait()
		if leaf != nil || err == nil {
			shown = append(shown, presented{f, leaf})
		}
		if _, ok := taken[f.at.Address]; ok {
			continue
		}
		if d := p.units.examineSocket(name, f, err == nil); d != nil && d.Result == illness {
			found = append(found, *d)
			continue
		} else if d != nil {
			doubts = append(doubts, *d)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w within %v", errSilence, p.pace.all)
		}
		if err != nil {
			silent = append(silent, silence{f.at, err.Error(), p.consequence(f, err)})
		}
	}
	for _, s := range joined(silent) {
		text := fmt.Sprintf("%s at %s: %s", program, s.where(), s[0].why)
		if words := p.units[program+".service"].lastWords(); words != "" {
			text += "; it says: " + words
		}
		d := diagnosis{Part: name, Result: illness, Text: text, Remedy: p.units.revive(program, fronts), cause: down(program), after: s[0].after}
		if len(found) > 0 { // the first one is told
			d.after = append(d.after, down(program))
		}
		found = append(found, d)
	}
	if len(found) == 0 {
		found = append(doubts, p.examineMetrics(ctx, name, metrics)...)
		found = append(found, p.comparePresented(program, shown)...)
	}
	if len(found) == 0 {
		found = []diagnosis{{Part: name, Result: well, Text: fmt.Sprintf("%s answers as it should (%d questions)", program, len(fronts))}}
	}
	return found
}

// A silence is a front that does not answer as it should.
type silence struct {
	at    settings.Address
	why   string
	after []cause
}

type silences []silence

// joined are those together that have the same reason, and first those that do not follow from something else.
func joined(all []silence) []silences {
	order := func(a, b silence) int {
		return cmp.Or(cmp.Compare(len(a.after), len(b.after)), cmp.Compare(a.why, b.why))
	}
	slices.SortStableFunc(all, order)
	var groups []silences
	for i, s := range all {
		if i == 0 || order(all[i-1], s) != 0 {
			groups = append(groups, nil)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], s)
	}
	return groups
}

func (all silences) where() string {
	var at []string
	for _, s := range all {
		at = append(at, s.at.String())
	}
	return list(at)
}

// errNotStored is a refusal by which lmtp(8) keeps a message.
var errNotStored = errors.New("mail cannot be stored")

// consequence says from what else an error may follow.
func (p *patient) consequence(f front, err error) []cause {
	switch {
	case errors.Is(err, errNotStored):
		return []cause{noLedger, fullDisk}
	case f.tls && !errors.Is(err, errNobody):
		return []cause{noFile(p.settings.TLS.Certificate), noFile(p.settings.TLS.Key)}
	}
	return nil
}

// A packet is a question in octets: to the policy service, or to the milter.
type packet struct {
	text     string
	end      byte   // of the answer
	answer   string // what is in it
	farewell string
}

// framed is a packet of the milter protocol.
func framed(content string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(content)))) + content
}

func (q packet) ask(ctx context.Context, f front) (*x509.Certificate, error) {
	d, err := converse(ctx, f.at, f.proxies, f.tls)
	if err != nil {
		return nil, err
	}
	defer d.conn.Close()
	if _, err := io.WriteString(d.conn, q.text); err != nil {
		return nil, d.broken(err)
	}
	got, err := d.lines.R.ReadString(q.end)
	switch {
	case err != nil && got == "":
		return nil, d.broken(err)
	case err != nil || !strings.Contains(got, q.answer):
		return nil, fmt.Errorf("the answer %.80q is none of the protocol", got)
	}
	if q.farewell != "" {
		// A daemon that could not say good-bye would log it.
		if _, err = io.WriteString(d.conn, q.farewell); err == nil {
			_, err = io.Copy(io.Discard, d.lines.R)
		}
		if err != nil {
			return nil, d.broken(err)
		}
	}
	return nil, nil
}

// helloName is by what the doctor says EHLO and LHLO.
const helloName = "doctor.invalid"

// askTurnd looks whether a customer could log in.
func (p *patient) askTurnd(ctx context.Context, f front) (*x509.Certificate, error) {
	d, err := converse(ctx, f.at, f.proxies, f.tls)
	if err != nil {
		return nil, err
	}
	defer d.bye()
	if _, err := d.demand(""); err != nil {
		return nil, err
	}
	hello, err := d.hello("EHLO " + helloName)
	if err != nil {
		return d.leaf, err
	}
	if _, ok := hello.offers("ATRN"); !ok {
		return d.leaf, errors.New("what answers knows no ATRN (RFC 2645)")
	}
	if mechanisms, _ := hello.offers("AUTH"); len(mechanisms) == 0 && p.desk != nil && d.leaf != nil {
		return d.leaf, errors.New("no AUTH is offered, so nobody can fetch mail by ATRN")
	}
	return d.leaf, nil
}

// askControl has the open turns listed.
func askControl(ctx context.Context, f front) (*x509.Certificate, error) {
	conn, err := call(ctx, f.at, nil) // which has fewer words for a socket that is not there
	if err != nil {
		return nil, err
	}
	conn.Close()
	_, err = control.NewClient(f.at.Address).List(ctx)
	return nil, err
}

// askPOP3 looks whether a customer could log in. A password is not tried: it would count as a guess.
func askPOP3(ctx context.Context, f front) (*x509.Certificate, error) {
	d, err := converse(ctx, f.at, f.proxies, f.tls)
	if err != nil {
		return nil, err
	}
	defer d.bye()
	if _, err := d.pop3(""); err != nil {
		return nil, err
	}
	capable, err := d.capabilities()
	if err != nil {
		return d.leaf, err
	}
	if slices.Contains(capable, "STLS") {
		if _, err := d.pop3("STLS"); err != nil {
			return nil, err
		}
		if err := d.encrypt(); err != nil {
			return nil, err
		}
		if capable, err = d.capabilities(); err != nil {
			return d.leaf, err
		}
	}
	if d.leaf != nil && !slices.Contains(capable, "USER") {
		return d.leaf, errors.New("no log-in is offered under TLS, so nobody can fetch mail")
	}
	return d.leaf, nil
}

// capabilities are what CAPA names (RFC 2449), without parameters.
func (d *dialogue) capabilities() ([]string, error) {
	if _, err := d.pop3("CAPA"); err != nil {
		return nil, err
	}
	lines, err := d.lines.ReadDotLines()
	if err != nil {
		return nil, d.broken(err)
	}
	for i, line := range lines {
		lines[i], _, _ = strings.Cut(line, " ")
	}
	return lines, nil
}

// askDelivery offers a message for a mailbox, as the MTA does, and takes the offer back.
func (p *patient) askDelivery(ctx context.Context, f front) (*x509.Certificate, error) {
	d, err := converse(ctx, f.at, nil, false)
	if err != nil {
		return nil, err
	}
	defer d.bye()
	if _, err := d.demand(""); err != nil {
		return nil, err
	}
	if _, err := d.demand("LHLO " + helloName); err != nil {
		return nil, err
	}
	if _, err := d.demand("MAIL FROM:<>"); err != nil {
		return nil, err
	}
	for _, t := range p.trials(ctx) {
		if t.account.Mode != meter.POP3 {
			continue
		}
		if r, err := d.smtp("RCPT TO:<" + t.address + ">"); err != nil {
			return nil, err
		} else if !r.positive() && !r.ofAccount() {
			return nil, fmt.Errorf("%w, for account %s: %s", errNotStored, t.account.Name, r)
		}
	}
	_, err = d.demand("RSET")
	return nil, err
}

// examineRelease has mailbag-turnd try what root may in any case.
func (p *patient) examineRelease(ctx context.Context) []diagnosis {
	err := control.NewClient(p.settings.Turn.Control.Address).TryMTA(ctx)
	if !errors.Is(err, control.ErrMTA) || p.settings.Turn.Release != settings.ByMTA {
		return nil // of a daemon that does not answer enough is said
	}
	return []diagnosis{{Part: "turnd", Result: illness, Text: fmt.Sprintf("mailbag-turnd cannot list %s's queue or release mail, so held mail stays where it is: %v", p.words.Name, err),
		Remedy: p.words.Reach, after: []cause{noMTA, noSetup, noHelper}}}
}
