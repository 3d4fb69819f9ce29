package door

import (
	"bufio"
	"errors"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTime is how long a proxy has for its header, which it sends at once.
const headerTime = 5 * time.Second

// relay receives a proxy's connection once its header has come: from whom that says, or nobody.
//
// The library's own listener is not used: it reads the header when it is first asked for an address, which would have one
// proxy that is slow hold up everybody, and tells nobody why a connection failed.
func (d *Door) relay(conn net.Conn, proxy Client, receive func(net.Conn, Client)) {
	arrives := d.begin(func() bool {
		room := len(d.arriving) < d.cfg.Most
		if room {
			d.arriving[conn] = struct{}{}
		}
		return room
	})
	if !arrives {
		conn.Close()
		return
	}
	go func() {
		defer d.wait.Done()
		in, from, err := readHeader(conn, proxy, d.patience)
		d.mu.Lock()
		delete(d.arriving, conn)
		d.mu.Unlock()
		switch {
		case err == nil:
			receive(&relayed{conn, in}, from)
			return
		case !d.Closing():
			if n, ok := d.forgotten.Allow(); ok {
				d.cfg.Logger.Warn("a proxy's connection was closed, because it did not begin with a PROXY header; have it send one, or take it off the list",
					"socket", d.cfg.Socket, "proxy", proxy.Addr, "error", err, "more", n)
			}
		}
		conn.Close()
	}()
}

// readHeader reads a PROXY header of either version (section 2 of https://www.haproxy.org/download/3.4/doc/proxy-protocol.txt), and
// returns what came behind it. Where it names no client (LOCAL and UNKNOWN, also for clients at a unix socket of the proxy's), the
// client has the proxy's address, and no more.
func readHeader(conn net.Conn, proxy Client, patience time.Duration) (*bufio.Reader, Client, error) {
	conn.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReaderSize(conn, 256)
	header, err := proxyproto.Read(in)
	if err != nil {
		return nil, Client{}, err
	}
	conn.SetReadDeadline(time.Time{})
	from := Client{Addr: proxy.Addr}
	if header.Command.IsProxy() {
		switch source := header.SourceAddr.(type) {
		case *net.TCPAddr:
			from.Addr = source.AddrPort().Addr().Unmap()
		case *net.UDPAddr:
			return nil, Client{}, errors.New("the header is about UDP")
		}
	}
	return in, from, nil
}

// relayed is a connection whose header was read.
type relayed struct {
	net.Conn
	in *bufio.Reader
}

func (r *relayed) Read(p []byte) (int, error) { return r.in.Read(p) }
