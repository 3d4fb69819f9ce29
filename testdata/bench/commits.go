package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"mailbag/testdata/service"
)

// commits is how many messages share a commit, which is one fsync, when 100 connections ask at once.
func commits(bin, dir string) error {
	account := []string{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example"}
	return beside(bin, dir, nil, [][]string{account}, func(s *service.Service) error {
		const connections, each = 100, 300
		begun := time.Now()
		errs := make(chan error, connections)
		for c := range connections {
			go func() { errs <- receive(s.Socket("policy"), c, each) }()
		}
		for range connections {
			if err := <-errs; err != nil {
				return err
			}
		}
		rate := connections * each / time.Since(begun).Seconds()
		made, err := s.Metric("mailbag_ledger_commits_total")
		if err != nil {
			return err
		}
		alone, err := fsyncs(dir)
		if err != nil {
			return err
		}
		fmt.Printf("%d connections have %.0f messages/s recorded durably in %.0f commits; the disk does %.0f fsyncs/s\n", connections, rate, made, alone)
		atLeast("messages per commit", connections*each/made, 30, "")
		return nil
	})
}

// receive has so many messages accepted over one policy connection.
func receive(socket string, connection, each int) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for i := range each {
		for _, state := range []string{"RCPT", "END-OF-MESSAGE"} {
			fmt.Fprintf(conn, "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\nclient_address=192.0.2.7\n"+
				"sender=x@elsewhere.example\nrecipient=a@acme.example\nrecipient_count=1\nqueue_id=%X\ninstance=%x.%x.%x.0\nsize=4096\n\n",
				state, connection*each+i, connection+1, time.Now().Unix(), i)
			answer, err := answers.ReadString('\n')
			if err == nil {
				_, err = answers.ReadString('\n')
			}
			if err != nil || answer != "action=DUNNO\n" {
				return fmt.Errorf("the answer to %s is %q, %v", state, answer, err)
			}
		}
	}
	return nil
}

// fsyncs is how many 4 kB appends a second the disk makes durable one after another.
func fsyncs(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	begun, n := time.Now(), 0
	for ; time.Since(begun) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}
