package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"mailbag/meter"
	"mailbag/policy"
	"mailbag/turnd/control"
	"mailbag/turnd/turn"
)

// turnd stands for mailbag-turnd, with one account.
type turnd struct {
	directory *meter.Directory
	err       error
	asked     turn.Client
}

func (d *turnd) Directory() *meter.Directory { return d.directory }
func (d *turnd) Dial(_ context.Context, _ *meter.Account, c turn.Client) error {
	d.asked = c
	return d.err
}
func (d *turnd) Open(account string) bool { return account == "bolt" }
func (d *turnd) List() []turn.Status      { return nil }
func (d *turnd) End(string) bool          { return false }

func TestETRNGetsTheTurnsOfTurnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ledger, err := meter.Open(t.Context(), filepath.Join(dir, "ledger.db"), meter.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	if err := ledger.AddAccount(t.Context(), meter.Account{Name: "bolt", Mode: meter.ETRN, Domains: []string{"bolt.example"}, Host: "192.0.2.7",
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Recipients: meter.AnyRecipient, Copies: meter.PerRecipient}, nil); err != nil {
		t.Fatal(err)
	}
	d := new(turnd)
	if d.directory, err = ledger.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "turnd.sock")
	ours := turns{control.NewClient(path), slog.New(slog.NewTextHandler(t.Output(), nil))}
	bolt := d.directory.Account("bolt")

	if err := ours.OpenTurn(t.Context(), bolt, "192.0.2.9"); !errors.Is(err, control.ErrDown) || errors.Is(err, policy.ErrUnreachable) || !strings.Contains(err.Error(), path) {
		t.Errorf("while mailbag-turnd is down the error is %v", err)
	}
	if ours.TurnOpen(t.Context(), bolt) {
		t.Error("while mailbag-turnd is down a turn is open")
	}

	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := control.New(d, d, nil, nil)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	defer func() {
		if err := errors.Join(server.Shutdown(context.Background()), <-ended); err != nil {
			t.Error(err)
		}
	}()
	for _, test := range []struct{ err, want error }{
		{nil, nil},
		{turn.ErrOpen, nil},
		{turn.ErrNothingWaits, nil},
		{fmt.Errorf("%w: connection refused", turn.ErrUnreachable), policy.ErrUnreachable},
		{turn.ErrSelf, policy.ErrUnreachable},
		{turn.ErrTooMany, turn.ErrTooMany},
		{meter.ErrUnavailable, meter.ErrUnavailable},
	} {
		d.err = test.err
		if err := ours.OpenTurn(t.Context(), bolt, "192.0.2.9"); !errors.Is(err, test.want) || test.want != policy.ErrUnreachable && errors.Is(err, policy.ErrUnreachable) {
			t.Errorf("%v becomes %v, want %v", test.err, err, test.want)
		}
	}
	if d.asked.Addr != "192.0.2.9" {
		t.Errorf("the turn was for %+v", d.asked)
	}
	if !ours.TurnOpen(t.Context(), bolt) || ours.TurnOpen(t.Context(), &meter.Account{Name: "corp"}) {
		t.Error("open turns are seen wrongly")
	}
}
