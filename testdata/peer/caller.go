package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A Caller fetches an account's mail by ATRN (RFC 2645), as fetchmail does, but with PIPELINING, CHUNKING and as many
// octets at a time as there are: it logs in with AUTH PLAIN, says ATRN and joins the line to the customer's mail server.
type Caller struct {
	Server   string // host and port
	From     string // IP address that it calls from; empty: whichever the system takes
	User     string
	Password string
	Domains  []string // nil: ATRN without arguments
	SMTP     string   // host and port of the customer's own mail server
	TLS      TLS

	Answered func(reply string) // called with the reply to ATRN, before the line is turned. May be nil
}

// TLS says how a Caller encrypts.
type TLS int

const (
	Clear TLS = iota
	StartTLS
	Implicit
)

// Run asks once and returns the reply to ATRN. Where that is 250 it returns when the turned session is over. The error
// is about everything else: a connection, a log-in.
func (c Caller) Run(ctx context.Context) (string, error) {
	var d net.Dialer
	if c.From != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(c.From)}
	}
	wire, err := d.DialContext(ctx, "tcp", c.Server)
	if err != nil {
		return "", err
	}
	defer wire.Close()
	defer context.AfterFunc(ctx, func() { _ = wire.Close() })()
	conn := wire
	if c.TLS == Implicit {
		conn = tls.Client(conn, anyCertificate)
	}
	in := bufio.NewReader(conn)
	say := func(command, want string) error {
		reply, err := ask(conn, in, command)
		if err == nil && !strings.HasPrefix(reply, want) {
			err = fmt.Errorf("%q was answered %q", command, reply)
		}
		return err
	}
	if err := say("", "220"); err != nil {
		return "", err
	}
	if err := say("EHLO mail.customer.example", "250"); err != nil {
		return "", err
	}
	if c.TLS == StartTLS {
		if err := say("STARTTLS", "220"); err != nil {
			return "", err
		}
		conn = tls.Client(conn, anyCertificate)
		in = bufio.NewReader(conn)
		if err := say("EHLO mail.customer.example", "250"); err != nil {
			return "", err
		}
	}
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + c.User + "\x00" + c.Password))
	if err := say("AUTH PLAIN "+secret, "235"); err != nil {
		return "", err
	}
	reply, err := ask(conn, in, strings.TrimSpace("ATRN "+strings.Join(c.Domains, ",")))
	if err != nil {
		return reply, err
	}
	if c.Answered != nil {
		c.Answered(reply)
	}
	if !strings.HasPrefix(reply, "250") {
		return reply, say("QUIT", "221")
	}
	return reply, c.join(ctx, conn, in)
}

// anyCertificate is for servers whose certificate the tests have signed themselves.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

// ask sends a command, if there is one, and reads a whole reply.
func ask(conn net.Conn, in *bufio.Reader, command string) (string, error) {
	if command != "" {
		if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
			return "", err
		}
	}
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), fmt.Errorf("no reply to %q: %w", command, err)
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// join carries octets both ways until either side has ended. How it ended is no news: both logs say it.
func (c Caller) join(ctx context.Context, line net.Conn, in *bufio.Reader) error {
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", c.SMTP)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(line, server)
		_ = line.Close()
	})
	_, _ = io.Copy(server, in)
	_ = server.Close()
	both.Wait()
	return nil
}
