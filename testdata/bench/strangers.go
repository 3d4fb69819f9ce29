package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailbag/testdata/service"
)

const (
	strangerCount   = 500
	strangersEach   = 15 // from one address, below the limit of port 366 together with the first ones
	strangerMost    = 32 // kB, with what the kernel holds
	strangerMostTLS = 48
)

// A stranger is somebody who connects and does not log in.
type stranger struct {
	what string
	tls  bool // begins with TLS
	does func(net.Conn)
}

func (s stranger) come(network, address string, local net.Addr) (net.Conn, error) {
	c, err := (&net.Dialer{LocalAddr: local, Timeout: 10 * time.Second}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	if s.tls {
		t := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		if err := t.Handshake(); err != nil {
			return nil, err
		}
		c = t
	}
	s.does(c)
	return c, nil
}

// strangers is what somebody takes who connects and does not log in, whatever he does instead.
func strangers(bin, dir string) error {
	s, err := service.New(bin, dir, nil)
	if err != nil {
		return err
	}
	openssl := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=mx.example", "-out", s.Certificate(), "-keyout", s.Key())
	if out, err := openssl.CombinedOutput(); err != nil {
		return fmt.Errorf("openssl: %w: %s", err, out)
	}
	if _, _, err := s.Mailbag("account", "add", "acme", "--mode", "backup", "--domain", "acme.example"); err != nil {
		return err
	}
	pop3, odmr, lmtp := talker("CAPA\r\n", 30), talker("EHLO x\r\n", 20), talker("LHLO x\r\n", 100_000)
	policy := talker("request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=a@acme.example\n\n", 10_000)
	for _, at := range []struct {
		name    string
		daemon  *service.Daemon
		network string
		address string
		who     []stranger
	}{
		{"POP3", s.Popd, "tcp", s.POP3, []stranger{silent, unended, pop3}},
		{"POP3S", s.Popd, "tcp", s.POP3S, []stranger{silent, halfway, secured(silent), secured(unended), secured(pop3)}},
		{"ODMR", s.Turnd, "tcp", s.ODMR, []stranger{silent, unended, odmr}},
		{"ODMR, TLS", s.Turnd, "tcp", s.ODMRTLS, []stranger{silent, halfway, secured(silent), secured(unended), secured(odmr)}},
		{"deliver", s.Popd, "unix", s.Deliver(), []stranger{silent, unended, lmtp}},
		{"policy", s.Daemon, "unix", s.Socket("policy"), []stranger{silent, unended, policy}},
		{"milter", s.Daemon, "unix", s.Socket("milter"), []stranger{silent}},
	} {
		for _, who := range at.who {
			own, kernel, err := weigh(at.daemon, who, at.network, at.address)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", at.name, who.what, err)
			}
			what := fmt.Sprintf("%-9s %-28s %2.0f + %2.0f", at.name, who.what, own, kernel)
			most := strangerMost
			if who.tls {
				most = strangerMostTLS
			}
			atMost(what, own+kernel, float64(most), " kB")
		}
	}
	return nil
}

// weigh has a daemon of its own for so many of them, and returns what one takes, in kB: of the daemon, and of the kernel's
// buffers at its end.
func weigh(d *service.Daemon, who stranger, network, address string) (own, kernel float64, err error) {
	if err := d.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	// The first brings about what is there once.
	all := []net.Conn{}
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	var mu sync.Mutex
	come := func(n int) error {
		errs := make([]error, n)
		var coming sync.WaitGroup
		at := make(chan struct{}, 50)
		for i := range n {
			at <- struct{}{}
			coming.Go(func() {
				defer func() { <-at }()
				var local net.Addr
				if network == "tcp" {
					local = &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i/strangersEach))}
				}
				var c net.Conn
				if c, errs[i] = who.come(network, address, local); errs[i] == nil {
					mu.Lock()
					all = append(all, c)
					mu.Unlock()
				}
			})
		}
		coming.Wait()
		return errors.Join(errs...)
	}
	if err := come(5); err != nil {
		return 0, 0, err
	}
	before, _, err := megabytes(d.PID())
	if err != nil {
		return 0, 0, err
	}
	if err := come(strangerCount); err != nil {
		return 0, 0, err
	}
	after, _, err := megabytes(d.PID())
	if err != nil {
		return 0, 0, err
	}
	octets, err := buffered(network, address)
	return (after - before) * 1024 / strangerCount, octets / 1024 / float64(len(all)), err
}

var socketMemory = regexp.MustCompile(`skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),`)

// buffered is what the kernel holds for a server's ends of its connections, in octets.
func buffered(network, address string) (octets float64, err error) {
	family := map[string]string{"tcp": "-t", "unix": "-x"}[network]
	out, err := exec.Command("ss", "-HnmO", family).Output()
	if err != nil {
		return 0, fmt.Errorf("ss: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// A connection's own end comes first. Unix sockets show where they were bound, before they were moved to where they are found.
		if own := strings.Fields(line); len(own) < 5 || own[3] != address && strings.TrimSuffix(own[4], "~") != address {
			continue
		}
		for _, parts := range socketMemory.FindAllStringSubmatch(line, 1) { // a connection that is gone has none
			for _, n := range parts[1:] {
				more, _ := strconv.ParseFloat(n, 64)
				octets += more
			}
		}
	}
	return octets, nil
}

// silent says nothing, and takes a greeting where there is one.
var silent = stranger{"silent", false, func(c net.Conn) { read(c, 200*time.Millisecond) }}

// unended begins the longest line.
var unended = stranger{"a line without end", false, func(c net.Conn) {
	read(c, 5*time.Second)
	write(c, "AUTH SCRAM-SHA-256\r\n")
	read(c, 200*time.Millisecond)
	write(c, strings.Repeat("x", 6000))
}}

// halfway stops within the handshake of TLS: of a ClientHello of 16 KiB the end is missing.
var halfway = stranger{"half a handshake", false, func(c net.Conn) {
	write(c, "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc"+strings.Repeat("\x00", 16000))
}}

// talker says one thing so many times, as often as he may where that is bounded, and reads no answer.
func talker(what string, times int) stranger {
	return stranger{"talks and does not read", false, func(c net.Conn) { write(c, strings.Repeat(what, times)) }}
}

// secured does it under TLS.
func secured(s stranger) stranger { return stranger{"TLS, " + s.what, true, s.does} }

func read(c net.Conn, patience time.Duration) {
	c.SetReadDeadline(time.Now().Add(patience))
	c.Read(make([]byte, 1000))
}

// write is over when nothing more is taken, or nobody is there.
func write(c net.Conn, text string) {
	c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, text)
}
