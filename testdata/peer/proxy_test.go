package peer

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// echo is a server that sends everything back, and the end of the stream too.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	return l.Addr().String()
}

// through sends octets through a line to the echo and returns what comes back, and how long it took.
func through(t *testing.T, p *Proxy, octets []byte) ([]byte, time.Duration) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = conn.Write(octets)
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	back, _ := io.ReadAll(conn) // a cut line ends in an error, and is seen by what is missing
	sending.Wait()
	return back, time.Since(began)
}

func TestLineCarriesEveryOctetBothWays(t *testing.T) {
	t.Parallel()
	octets := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	for _, line := range []Line{{}, {Delay: 20 * time.Millisecond}, {Rate: 4 << 20}} {
		p := RunProxy(t, echo(t), line)
		back, _ := through(t, p, octets)
		if sha256.Sum256(back) != sha256.Sum256(octets) {
			t.Errorf("%+v: %d octets came back of %d", line, len(back), len(octets))
		}
		if up, down := p.Carried(); up != int64(len(octets)) || down != up {
			t.Errorf("%+v: %d and %d octets were counted", line, up, down)
		}
	}
}

// Lower bounds only: a loaded machine may take longer.
func TestLineIsAsSlowAndNarrowAsItSays(t *testing.T) {
	t.Parallel()
	if _, took := through(t, RunProxy(t, echo(t), Line{Delay: 50 * time.Millisecond}), []byte("x")); took < 100*time.Millisecond {
		t.Errorf("a round trip took %v", took)
	}
	if _, took := through(t, RunProxy(t, echo(t), Line{Rate: 100_000}), make([]byte, 30_000)); took < 290*time.Millisecond {
		t.Errorf("30,000 octets at 100,000 a second took %v", took)
	}
}

func TestLineIsCutAfterExactlySoManyOctets(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{1, 2, 4095, 4096, 16384, 16385, 99_999} {
		back, _ := through(t, RunProxy(t, echo(t), Line{CutDown: n}), make([]byte, 200_000))
		if int64(len(back)) != n {
			t.Errorf("cut after %d octets, %d came", n, len(back))
		}
		p := RunProxy(t, echo(t), Line{CutUp: n})
		back, _ = through(t, p, make([]byte, 200_000))
		if up, _ := p.Carried(); up != n || int64(len(back)) > n {
			t.Errorf("cut after %d octets, %d went and %d came", n, up, len(back))
		}
	}
}
