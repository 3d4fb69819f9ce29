package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"mailbag/cmd/internal/settings"
	"mailbag/turnd/control"
)

// answerTime bounds what a daemon is asked. systemd may have to start it first.
const answerTime = 15 * time.Second

// maxReply bounds what is read of an answer, in octets.
const maxReply = 4 << 10

// A question is one that a daemon is asked as Postfix or a customer would, or none where the daemon greets.
type question struct {
	at       settings.Address
	proxies  []netip.Addr
	tls      bool
	text     string
	end      byte   // of the answer
	answer   string // what is in it
	farewell string
}

// examineDaemons asks each daemon something at each of its sockets, and for its metrics.
func examineDaemons(ctx context.Context, s *settings.Settings) []diagnosis {
	policyd := []question{
		// VRFY, because a recipient of a message would be noted.
		{at: s.Policy.Listen, end: '\n', text: "request=smtpd_access_policy\nprotocol_state=VRFY\nrecipient=postmaster@doctor.invalid\n\n", answer: "action=DUNNO"},
		// Options that the MTA offers, and the end of the session (SMFIC_OPTNEG and SMFIC_QUIT).
		{at: s.Policy.Milter, end: 'O', text: packet("O\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"), answer: "\x00\x00\x00", farewell: packet("Q")},
	}
	smtp := question{end: '\n', answer: "220 ", farewell: "QUIT\r\n"}
	pop3 := question{end: '\n', answer: "+OK ", farewell: "QUIT\r\n"}
	deliver := smtp
	deliver.at = s.POP.Deliver
	smtp.proxies, pop3.proxies = s.Proxies, s.Proxies
	turnd := slices.Concat(questions(s.Turn.Listen, false, smtp), questions(s.Turn.ListenTLS, true, smtp))
	popd := slices.Concat(questions(s.POP.Listen, false, pop3), questions(s.POP.ListenTLS, true, pop3), []question{deliver})

	found := examineDaemon(ctx, "policyd", policyd, s.Policy.Metrics, nil)
	found = append(found, examineDaemon(ctx, "turnd", turnd, s.Turn.Metrics, func(ctx context.Context) error {
		_, err := control.NewClient(s.Turn.Control.Address).List(ctx)
		return err
	})...)
	return append(found, examineDaemon(ctx, "popd", popd, s.POP.Metrics, nil)...)
}

// questions asks at the first of the addresses: the others are for other kinds of network, which this machine need not have.
func questions(at []settings.Address, tls bool, q question) []question {
	if len(at) == 0 {
		return nil
	}
	q.at, q.tls = at[0], tls
	return []question{q}
}

// packet is one of the milter protocol.
func packet(content string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(content)))) + content
}

func examineDaemon(ctx context.Context, name string, all []question, metrics settings.Address, also func(context.Context) error) []diagnosis {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	remedy := "see: systemctl status 'mailbag-*', journalctl -u mailbag-" + name
	var found []diagnosis
	asked := 0
	for _, q := range all {
		if q.at.IsZero() {
			continue
		}
		asked++
		if err := q.ask(ctx); err != nil {
			found = append(found, diagnosis{Part: name, Result: illness, Text: fmt.Sprintf("at %s: %v", q.at, err), Remedy: remedy})
		}
	}
	if also != nil {
		if err := also(ctx); err != nil {
			found = append(found, diagnosis{Part: name, Result: illness, Text: err.Error(), Remedy: remedy})
		}
	}
	if !metrics.IsZero() {
		found = append(found, examineMetrics(ctx, name, metrics, remedy)...)
	}
	if found == nil {
		found = []diagnosis{{Part: name, Result: well, Text: fmt.Sprintf("mailbag-%s answers as it should (%d questions)", name, asked)}}
	}
	return found
}

// errNobody says that no connection came about.
var errNobody = errors.New("nobody answers")

// call connects to a daemon, until ctx ends. Whoever listens on every address of the machine is called at its loopback. Where
// the daemon expects a PROXY header from there, the call has one by which it is the proxy's own (LOCAL).
func call(ctx context.Context, at settings.Address, proxies []netip.Addr) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNobody, err)
	}
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end)
	}
	if from, ok := conn.LocalAddr().(*net.TCPAddr); ok && slices.Contains(proxies, from.AddrPort().Addr().Unmap()) {
		if _, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).WriteTo(conn); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// ask asks the question.
func (q question) ask(ctx context.Context) error {
	conn, err := call(ctx, q.at, q.proxies)
	if err != nil {
		return err
	}
	defer conn.Close()
	if q.tls {
		// Whether customers can trust the certificate is looked at in its file; there may be no name here to verify it by.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(conn, q.text); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	answers := bufio.NewReader(io.LimitReader(conn, maxReply))
	got, err := answers.ReadString(q.end)
	if err != nil {
		return fmt.Errorf("the answer %q is cut off: %w", got, err)
	}
	if !strings.Contains(got, q.answer) {
		return fmt.Errorf("the answer is %q, where %q should be in it", got, q.answer)
	}
	if q.farewell != "" {
		// A daemon that could not say good-bye would log it.
		if _, err = io.WriteString(conn, q.farewell); err == nil {
			_, err = io.Copy(io.Discard, answers)
		}
		if err != nil {
			return fmt.Errorf("the connection broke off: %w", err)
		}
	}
	return nil
}

// examineMetrics looks at those that tell of trouble.
func examineMetrics(ctx context.Context, name string, at settings.Address, remedy string) []diagnosis {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.Address+"/metrics", nil)
	if err != nil {
		return []diagnosis{{Part: name, Result: doubt, Text: err.Error(), Remedy: remedy}}
	}
	var client http.Client
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return []diagnosis{{Part: name, Result: doubt, Text: "its metrics cannot be had: " + err.Error(), Remedy: remedy}}
	}
	defer response.Body.Close()
	var found []diagnosis
	sums := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		metric, value, _ := strings.Cut(lines.Text(), " ")
		metric, _, _ = strings.Cut(metric, "{")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			sums[metric] += n
		}
	}
	if err := errors.Join(lines.Err(), statusError(response)); err != nil {
		return []diagnosis{{Part: name, Result: doubt, Text: "its metrics cannot be read: " + err.Error(), Remedy: remedy}}
	}
	if available, ok := sums["mailbag_ledger_available"]; ok && available == 0 {
		found = append(found, diagnosis{Part: name, Result: illness, Text: "the daemon cannot use the ledger, and defers the accounts' mail", Remedy: remedy})
	}
	if current, ok := sums["mailbag_tables_current"]; ok && current == 0 {
		found = append(found, diagnosis{Part: name, Result: illness, Text: "the tables that Postfix reads are not those of the accounts", Remedy: remedy})
	}
	return found
}

func statusError(r *http.Response) error {
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return nil
}
