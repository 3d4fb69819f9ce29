package turn

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"mailbag/meter"
	"mailbag/testdata/certificate"
	"mailbag/testdata/peer"
	"mailbag/turnd/relay"
)

func TestMailGoesByTheTLSThatTheAccountWants(t *testing.T) {
	t.Parallel()
	ours, another := certificate.New(t, "localhost"), certificate.New(t, "mail.elsewhere.example")
	server := func(c *certificate.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c.Pair}}
	}
	old := server(ours)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	demanding := server(ours)
	demanding.ClientAuth = tls.RequireAnyClientCert
	trusting := func() *tls.Config {
		c := opportunistic()
		c.RootCAs = ours.Roots
		return c
	}
	const clear = "in the clear"
	for name, c := range map[string]struct {
		quirks []peer.Quirk
		came   map[meter.TLSLevel]string // by which the mail came
		errs   map[meter.TLSLevel]error  // or why it did not
	}{
		"offers none": {nil,
			map[meter.TLSLevel]string{meter.TLSOpportunistic: clear},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrNoTLS, meter.TLSVerify: relay.ErrNoTLS}},
		"has a certificate for its name": {[]peer.Quirk{peer.StartsTLS(server(ours))},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: "TLS 1.3", meter.TLSRequire: "TLS 1.3", meter.TLSVerify: "TLS 1.3"},
			nil},
		"has a certificate that nobody trusts": {[]peer.Quirk{peer.StartsTLS(server(another))},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: "TLS 1.3", meter.TLSRequire: "TLS 1.3"},
			map[meter.TLSLevel]error{meter.TLSVerify: relay.ErrTLS}},
		"has TLS 1.0 only": {[]peer.Quirk{peer.StartsTLS(old)},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: "TLS 1.0"},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrTLS, meter.TLSVerify: relay.ErrTLS}},
		"wants a certificate of ours": {[]peer.Quirk{peer.StartsTLS(demanding)},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: clear},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrTLS, meter.TLSVerify: relay.ErrTLS}},
		"closes under TLS": {[]peer.Quirk{peer.StartsTLS(server(ours)), peer.ClosesUnderTLS()},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: clear},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrTLS, meter.TLSVerify: relay.ErrTLS}},
		"refuses STARTTLS": {[]peer.Quirk{peer.StartsTLS(server(ours)), peer.Says("STARTTLS", "454 4.7.0 not now")},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: clear},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrTLS, meter.TLSVerify: relay.ErrTLS}},
		"closes at STARTTLS": {[]peer.Quirk{peer.StartsTLS(server(ours)), peer.Says("STARTTLS", "421 4.7.0 not you")},
			map[meter.TLSLevel]string{meter.TLSOpportunistic: clear},
			map[meter.TLSLevel]error{meter.TLSRequire: relay.ErrTLS, meter.TLSVerify: relay.ErrTLS}},
	} {
		for _, level := range meter.TLSLevels {
			t.Run(name+", "+string(level), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, func(c *plan) { c.TLS = trusting() })
				gateway := peer.RunGateway(t, c.quirks...)
				h.hold(true, hello, "a@hooli.example")
				_, port, _ := net.SplitHostPort(gateway.Addr())
				a := *h.account("hooli")
				a.Mode, a.Host, a.TLS = meter.ETRN, "localhost:"+port, level
				err := h.turns.Dial(t.Context(), &a, Client{Addr: "192.0.2.1"})
				h.until("the turn is over", func() bool { return !h.turns.Open("hooli") })
				got := gateway.Messages()
				if want := c.errs[level]; want != nil {
					if !errors.Is(err, ErrUnreachable) || !errors.Is(err, want) {
						t.Errorf("%v, want %v", err, want)
					}
					if len(got) != 0 || h.held() != 1 || h.waiting("hooli") != 1 || h.record().Messages != 0 {
						t.Errorf("%d messages arrived, %d are held, %d wait by the index, recorded %+v", len(got), h.held(), h.waiting("hooli"), h.record())
					}
					return
				}
				want := c.came[level]
				if want == clear {
					want = ""
				}
				if err != nil || len(got) != 1 || got[0].TLS != want {
					t.Fatalf("%v; arrived: %+v", err, got)
				}
				if r := h.record(); r.TLS != want || r.Outcome != "done" {
					t.Errorf("recorded %+v", r)
				}
			})
		}
	}
}
