package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"

	eximtest "mailbag/testdata/exim"
	"mailbag/testdata/service"
)

// What is held is not delivered while more is accepted, so nothing but Exim's acceptance hides what mailbag costs.
var bagged = shape{25, "held.example"}

const eximLot = 200

// eximAcceptance is what mailbag costs an Exim, against one that relays and holds the same mail by itself; and what
// asking costs alone, when a policy service that knows nothing lets everything in.
func eximAcceptance(rounds int) func(bin, dir string) error {
	return func(bin, dir string) error {
		plain := &variant{name: "Exim", lot: eximLot, up: eximAlone}
		null := &variant{name: "with a null policy service", lot: eximLot, against: plain, up: eximWired(true)}
		wired := &variant{name: "with mailbag", lot: eximLot, against: plain, up: eximWired(false)}
		return compare([]*variant{plain, null, wired}, []shape{one, many, bagged}, rounds, bin, dir, func(order *rand.Rand) error {
			atLeast("Exim's acceptance with mailbag / without, one each", median(wired.ratios(one)), 0.97, "")
			atLeast(fmt.Sprintf("the same, %d each", many.each), median(wired.ratios(many)), 0.8, "")
			atLeast(fmt.Sprintf("the same, %d each, held", bagged.each), median(wired.ratios(bagged)), 0.8, "")
			return alone(plain, wired, 50, order, dir)
		})
	}
}

// eximAlone has an Exim that relays to the port, and holds mail for one domain in a named queue as mailbag does.
func eximAlone(v *variant, _, dir string, port int, measure func() error) error {
	hold := filepath.Join(dir, "hold")
	rule := fmt.Sprintf("warn\n  domains = %s\n  queue = mailbag\n  control = queue\n", bagged.to)
	if err := os.WriteFile(hold, []byte(rule), 0o644); err != nil {
		return err
	}
	sink := fmt.Sprintf("127.0.0.1:%d", port)
	in, err := newExim(filepath.Join(dir, "exim"), eximtest.Config{
		Main:   "CHECK_RCPT_LOCAL_ACL_FILE = " + hold,
		Relays: map[string]string{one.to: sink, bagged.to: sink},
	})
	if err != nil {
		return err
	}
	defer in.Close()
	v.holds(in)
	return measure()
}

// eximWired has an Exim with mailbag, or with the null policy service in the place of mailbag-policyd.
func eximWired(null bool) func(v *variant, bin, dir string, port int, measure func() error) error {
	return func(v *variant, bin, dir string, port int, measure func() error) error {
		in, err := newExim(filepath.Join(dir, "exim"), eximtest.Config{})
		if err != nil {
			return err
		}
		defer in.Close()
		v.holds(in)
		held := []string{"account", "add", "held", "--mode", "etrn", "--domain", bagged.to, "--host", "127.0.0.1:9", "--network", "127.0.0.0/8"}
		return beside(bin, dir, in, [][]string{backup(port), held}, func(s *service.Service) error {
			if null {
				if err := s.Stop(); err != nil {
					return err
				}
				policy, err := startSelf("the policy service", s.Socket("policy"), "-policy", s.Socket("policy"))
				if err != nil {
					return err
				}
				defer end(policy)
			} else {
				v.service, v.accounts = s, []string{"acme", "held"}
			}
			return measure()
		})
	}
}

func newExim(dir string, c eximtest.Config) (*eximtest.Instance, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return eximtest.New(dir, c)
}

// holds makes the Exim that of the variant.
func (v *variant) holds(in *eximtest.Instance) {
	v.mta = in
	v.discard = func() error { return os.RemoveAll(in.Root("/var/spool/exim4/mailbag")) }
}

// servePolicy is a policy service that lets everything in, and does nothing else: the least that asking one costs.
func servePolicy(socket string) error {
	return serveEach(socket, func(conn net.Conn) {
		if _, err := io.Copy(io.Discard, conn); err == nil { // Exim ends its question
			_, _ = io.WriteString(conn, "action=DUNNO\n\n") // to who has gone
		}
	})
}
