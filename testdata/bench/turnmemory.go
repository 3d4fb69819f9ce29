package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

// idleTurns is what mailbag-turnd takes for turns whose customer's server does nothing.
func idleTurns(bin, dir string) error {
	const accounts = 100
	server, err := postfixtest.NewSink()
	if err != nil {
		return err
	}
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	server.OnMessage = func(postfixtest.Message) string { <-release; return "" }
	if err := server.Start(); err != nil {
		return err
	}
	defer server.Stop()
	defer let()
	postfix, err := newPostfix(filepath.Join(dir, "postfix"), nil)
	if err != nil {
		return err
	}
	name := func(i int) string { return fmt.Sprint("customer-", i) }
	var commands [][]string
	for i := range accounts {
		commands = append(commands, []string{"account", "add", name(i), "--mode", "etrn", "--domain", name(i) + ".example",
			"--host", server.Addr(), "--network", "127.0.0.0/8"})
	}
	return beside(bin, dir, postfix, commands, func(s *service.Service) (err error) {
		if err := errors.Join(s.Turnd.Start(), postfix.Start()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Turnd.Stop(), postfix.Stop()) }()
		defer let()
		before, _, err := megabytes(s.Turnd.PID())
		if err != nil {
			return err
		}
		client, err := postfixtest.Dial(postfix.Addr(), "")
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Say("EHLO sender.example"); err != nil {
			return err
		}
		data := []byte("Subject: x\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 90))
		for i := range accounts {
			o, err := client.Send(postfixtest.Mail{From: "x@elsewhere.example", To: []string{"a@" + name(i) + ".example"}, Data: data})
			if err != nil || !o.Accepted() {
				return fmt.Errorf("not accepted: %+v, %w", o, err)
			}
		}
		for i := range accounts {
			if _, _, err := s.Mailbag("flush", name(i)); err != nil {
				return err
			}
		}
		if err := postfixtest.Wait("all turns are open", func() bool {
			out, _, err := s.Mailbag("turns", "--json")
			return err == nil && strings.Count(out, `"account"`) >= accounts
		}); err != nil {
			return err
		}
		with, _, err := megabytes(s.Turnd.PID())
		if err != nil {
			return err
		}
		fmt.Printf("mailbag-turnd has %.0f MB resident, with %d idle turns %.0f MB\n", before, accounts, with)
		atMost("memory of 100 idle turns", with-before, 16, " MB")
		return nil
	})
}

// flood is what mailbag-turnd takes while Postfix hands it more than the customer's line carries.
func flood(bin, dir string) error {
	server, err := newCustomer(withChunking...)
	if err != nil {
		return err
	}
	defer server.Stop()
	line, err := peer.NewProxy(server.Addr(), peer.Line{Rate: 1 << 20})
	if err != nil {
		return err
	}
	defer line.Stop()
	postfix, err := newPostfix(filepath.Join(dir, "postfix"), map[string]string{"message_size_limit": "50000000"})
	if err != nil {
		return err
	}
	account := []string{"account", "add", "acme", "--mode", "etrn", "--domain", "acme.example", "--host", line.Addr(), "--network", "127.0.0.0/8"}
	return beside(bin, dir, postfix, [][]string{account}, func(s *service.Service) (err error) {
		if err := errors.Join(s.Turnd.Start(), postfix.Start()); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Turnd.Stop(), postfix.Stop()) }()
		before, _, err := megabytes(s.Turnd.PID())
		if err != nil {
			return err
		}
		if err := (path{size: 10_000_000}).hold(postfix, 30); err != nil {
			return err
		}
		if _, _, err := server.takes(2, func() error {
			_, _, err := s.Mailbag("flush", "acme")
			return err
		}); err != nil {
			return err
		}
		_, peak, err := megabytes(s.Turnd.PID())
		if err != nil {
			return err
		}
		atMost("memory for 300 MB on a line of 1 MB/s", peak-before, 32, " MB")
		line.Cut()
		return nil
	})
}
