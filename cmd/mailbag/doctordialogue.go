package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"mailbag/cmd/internal/settings"
)

// maxTalk bounds what is read of one server, in octets.
const maxTalk = 64 << 10

// A dialogue is a conversation with a server of lines (SMTP, LMTP, POP3), until its context ends.
type dialogue struct {
	conn  net.Conn
	lines *textproto.Reader
	began time.Time
	leaf  *x509.Certificate // that the server showed; nil: no TLS
}

var (
	errNobody  = errors.New("nobody answers")
	errSilence = errors.New("no answer")
)

// call connects to a server. Whoever listens on every address of the machine is called at its loopback. Where it expects a
// PROXY header from there, the call has one by which it is the proxy's own (LOCAL).
func call(ctx context.Context, at settings.Address, proxies []netip.Addr) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing listens there", errNobody)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: there is no such socket", errNobody)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNobody, err)
	}
	if end, ok := ctx.Deadline(); ok {
		conn.SetDeadline(end.Add(-lastWord)) // so that what is found can be told
	}
	if from, ok := conn.LocalAddr().(*net.TCPAddr); ok && slices.Contains(proxies, from.AddrPort().Addr().Unmap()) {
		if _, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL}).WriteTo(conn); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// converse calls a server and begins a dialogue, with TLS where the server begins with that.
func converse(ctx context.Context, at settings.Address, proxies []netip.Addr, encrypted bool) (*dialogue, error) {
	conn, err := call(ctx, at, proxies)
	if err != nil {
		return nil, err
	}
	d := &dialogue{began: time.Now()}
	d.over(conn)
	if encrypted {
		if err := d.encrypt(); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return d, nil
}

func (d *dialogue) over(conn net.Conn) {
	d.conn = conn
	d.lines = textproto.NewReader(bufio.NewReader(io.LimitReader(conn, maxTalk)))
}

// encrypt goes on under TLS. Whether customers can trust the certificate is looked at in its file; there may be no name
// here to verify it by.
func (d *dialogue) encrypt() error {
	conn := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		return d.broken(fmt.Errorf("no TLS comes about: %w", err))
	}
	d.leaf = conn.ConnectionState().PeerCertificates[0]
	d.over(conn)
	return nil
}

// broken is an error of the connection in an operator's words.
func (d *dialogue) broken(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		waited := time.Since(d.began).Round(100 * time.Millisecond)
		if waited > time.Second {
			waited = waited.Truncate(time.Second) // those who were asked at once are told of as one
		}
		return fmt.Errorf("%w within %v", errSilence, waited)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w: the connection is closed at once", errSilence)
	}
	return err
}

// A reply is that of SMTP (RFC 5321, section 4.2).
type reply struct {
	code  int
	lines []string
}

func (r reply) positive() bool { return r.code/100 == 2 }

// offers reports whether the reply to EHLO names an extension, and returns its parameters.
func (r reply) offers(extension string) (parameters []string, ok bool) {
	for _, line := range r.lines[min(1, len(r.lines)):] {
		if words := strings.Fields(line); len(words) > 0 && strings.EqualFold(words[0], extension) {
			return words[1:], true
		}
	}
	return nil, false
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.code, strings.Join(r.lines, " / ")) }

// smtp says something, or nothing where the server greets, and reads the reply.
func (d *dialogue) smtp(command string) (reply, error) {
	if command != "" {
		if _, err := io.WriteString(d.conn, command+"\r\n"); err != nil {
			return reply{}, d.broken(err)
		}
	}
	code, text, err := d.lines.ReadResponse(0)
	var not textproto.ProtocolError
	if errors.As(err, &not) {
		return reply{}, fmt.Errorf("what answers is no SMTP or LMTP: %s", not)
	}
	if err != nil {
		return reply{}, d.broken(err)
	}
	return reply{code, strings.Split(text, "\n")}, nil
}

// demand is smtp with a reply that has to be positive.
func (d *dialogue) demand(command string) (reply, error) {
	r, err := d.smtp(command)
	if err == nil && !r.positive() {
		what, _, _ := strings.Cut(command, " ")
		if command == "" {
			what = "a greeting"
		}
		return r, fmt.Errorf("%s in answer to %s", r, what)
	}
	return r, err
}

// hello says EHLO or LHLO, and where STARTTLS is offered goes on under TLS.
func (d *dialogue) hello(command string) (reply, error) {
	r, err := d.demand(command)
	if _, ok := r.offers("STARTTLS"); err != nil || !ok || d.leaf != nil {
		return r, err
	}
	if _, err := d.demand("STARTTLS"); err != nil {
		return r, err
	}
	if err := d.encrypt(); err != nil {
		return r, err
	}
	return d.demand(command)
}

// pop3 says something, or nothing where the server greets, and returns the text behind +OK.
func (d *dialogue) pop3(command string) (string, error) {
	if command != "" {
		if _, err := io.WriteString(d.conn, command+"\r\n"); err != nil {
			return "", d.broken(err)
		}
	}
	line, err := d.lines.ReadLine()
	if err != nil {
		return "", d.broken(err)
	}
	text, ok := strings.CutPrefix(line, "+OK")
	if !ok {
		return "", fmt.Errorf("what answers says %.80q, and not +OK", line)
	}
	return text, nil
}

// bye ends the dialogue. A daemon that could not say good-bye would log it.
func (d *dialogue) bye() {
	if _, err := io.WriteString(d.conn, "QUIT\r\n"); err == nil {
		io.Copy(io.Discard, d.lines.R)
	}
	d.conn.Close()
}
