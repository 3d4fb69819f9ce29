package door

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPeerWhoReadsNothingHoldsLittle(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	Confine(conn, 0, 8<<10)
	conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	taken, err := conn.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || taken > 32<<10 {
		t.Errorf("%d octets are taken for a peer who reads nothing: %v", taken, err)
	}
}
