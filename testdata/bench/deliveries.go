package main

import (
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"mailbag/testdata/dovecot"
	"mailbag/testdata/service"
)

const (
	deliverers     = 20  // connections
	deliveries     = 100 // messages on each, of 4 kB
	deliveryRounds = 5
)

// deliver is the rate at which mail is taken by LMTP, durably, by mailbag-popd and by Dovecot on the same disk: 20 connections,
// each for a mailbox of its own.
func deliver(bin, dir string) error {
	var users []string
	for i := range deliverers {
		users = append(users, fmt.Sprint("user", i))
	}
	return besideDovecot(bin, dir, users, func(s *service.Service, d *dovecot.Instance) error {
		popd, theirs := servers(s, d)
		both := []server{popd, theirs}
		var ratios []float64
		rates := map[string][]float64{}
		for round := range deliveryRounds + 1 {
			rate := map[string]float64{}
			for _, server := range both {
				var err error
				if rate[server.name], err = server.take(users); err != nil {
					return fmt.Errorf("%s: %w", server.name, err)
				}
			}
			// What one of them put there as root has to be the other's as well.
			if err := d.Own(); err != nil {
				return err
			}
			if round > 0 { // the first warms up
				ratios = append(ratios, rate[popd.name]/rate[theirs.name])
				for name, r := range rate {
					rates[name] = append(rates[name], r)
				}
			}
			slices.Reverse(both)
		}
		alone, err := fsyncs(dir)
		if err != nil {
			return err
		}
		fmt.Printf("%d LMTP connections deliver %.0f messages/s, and %.0f by Dovecot; the disk does %.0f fsyncs/s\n", deliverers, median(rates[popd.name]), median(rates[theirs.name]), alone)
		atLeast("LMTP delivery / Dovecot's", median(ratios), 1, "")
		return nil
	})
}

// take has messages delivered for each user at the same time, and returns how many a second.
func (s server) take(users []string) (perSecond float64, err error) {
	errs := make(chan error, len(users))
	begun := time.Now()
	for _, user := range users {
		go func() { errs <- s.takeFor(s.user(user)) }()
	}
	for range users {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return float64(len(users)*deliveries) / time.Since(begun).Seconds(), err
}

// takeFor delivers over one connection as Postfix does: the envelope at once, then the content.
func (s server) takeFor(recipient string) error {
	conn, err := net.Dial("unix", s.lmtp)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	c := textproto.NewConn(conn)
	content := "From: somebody@elsewhere.example\r\nSubject: bench\r\n\r\n" + strings.Repeat(strings.Repeat("x", 75)+"\r\n", 52) + ".\r\n"
	expect := func(code int) {
		if err == nil {
			_, _, err = c.ReadResponse(code)
		}
	}
	expect(220)
	fmt.Fprint(conn, "LHLO bench.example\r\n")
	expect(250)
	for range deliveries {
		fmt.Fprintf(conn, "MAIL FROM:<x@elsewhere.example>\r\nRCPT TO:<%s>\r\nDATA\r\n", recipient)
		expect(250)
		expect(250)
		expect(354)
		fmt.Fprint(conn, content)
		expect(250)
		if err != nil {
			return err
		}
	}
	return nil
}
