package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mailbag/testdata/peer"
	postfixtest "mailbag/testdata/postfix"
)

// password is globex's. Nobody but the demo ever reaches it.
const password = "the demo's own"

// held is how much mail each customer who fetches has waiting.
const held = 250

// asking are the customers who fetch.
func (s *stage) asking() error {
	if err := s.Turnd.Start(); err != nil {
		return err
	}
	add := s.Command("mailbag", "account", "add", "globex", "--mode", "atrn", "--domain", "globex.example", "--password-stdin")
	add.Stdin, add.Stdout, add.Stderr = strings.NewReader(password+"\n"), os.Stdout, os.Stderr
	fmt.Println("\033[2m# mailbag account add globex --mode atrn --domain globex.example --password-stdin\033[0m")
	if err := add.Run(); err != nil {
		return err
	}
	return s.mailbag("account", "add", "bolt", "--mode", "etrn", "--domain", "bolt.example", "--host", s.bolt.Addr(), "--network", "127.0.0.1/32")
}

// hold has mail accepted for the customers who fetch, and shows that it stays.
func (s *stage) hold() error {
	c, err := postfixtest.Dial(s.mta.Addr(), "")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Say("EHLO sender.example"); err != nil {
		return err
	}
	for i := range 2 * held {
		to := [...]string{"ceo@globex.example", "office@bolt.example"}[i%2]
		o, err := c.Send(postfixtest.Mail{From: "carol@sender.example", To: []string{to}, Data: letter(fmt.Sprint("Minutes of day ", i/2+1), 20)})
		if err = errors.Join(err, unless(o.Accepted(), o.Data)); err != nil {
			return err
		}
	}
	return s.mailbag("queue")
}

func unless(ok bool, said string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("the mail was not accepted: %s", said)
}

// reverse fetches globex's mail by ATRN.
func (s *stage) reverse() error {
	fmt.Println("fetchmail logs in at port 366 and says ATRN; the connection turns round and its own server gets the mail:")
	return s.fetch("globex", s.globex, held+2, peer.Fetchmail{Protocol: "odmr", Server: s.ODMR, User: "globex", Password: password,
		Domains: []string{"globex.example"}, SMTP: s.globex.Addr()})
}

// trigger has bolt's mail delivered by ETRN.
func (s *stage) trigger() error {
	fmt.Println("fetchmail says ETRN to port 25; mailbag dials bolt's server and delivers:")
	if err := s.fetch("bolt", s.bolt, held, peer.Fetchmail{Protocol: "etrn", Server: s.mta.Addr(), Domains: []string{"bolt.example"}}); err != nil {
		return err
	}
	err := postfixtest.Wait("the turn is over", func() bool {
		turns, _, err := s.Mailbag("turns", "bolt")
		return err == nil && strings.Contains(turns, "done")
	})
	return errors.Join(err, s.mailbag("turns"), s.mailbag("queue"))
}

// fetch runs fetchmail and shows how all that waits arrives at the customer's server.
func (s *stage) fetch(name string, server *postfixtest.Sink, waits int, f peer.Fetchmail) error {
	dir, err := os.MkdirTemp(s.dir, "fetchmail-")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), postfixtest.Patience)
	defer cancel()
	begun := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := f.Run(ctx, dir)
		ended <- err
	}()
	for n := 0; n < waits && ctx.Err() == nil; {
		messages, _ := server.MessagesWithin(100*time.Millisecond, waits)
		n = len(messages)
		fmt.Printf("\r    %-40s %3d of %d messages at %s's server", strings.Repeat("#", n*40/waits), n, waits, name)
	}
	fmt.Printf(", %.1f s\n", time.Since(begun).Seconds())
	return errors.Join(<-ended, ctx.Err())
}
