package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"mailbag/testdata/service"
)

// memory is what mailbag-policyd takes with 10,000 accounts and 1,000 connections, and how soon a
// change is in force then.
func memory(bin, dir string) error {
	account := []string{"account", "add", "first", "--mode", "backup", "--domain", "first.example"}
	return beside(bin, dir, nil, [][]string{account}, func(s *service.Service) error {
		if err := copies(s.Ledger, 9999); err != nil {
			return err
		}
		if err := s.AwaitDomain("customer-9999.example", "customer-9999"); err != nil {
			return err
		}
		for c := range 1000 {
			conn, err := ask(s.Socket("policy"), c)
			if err != nil {
				return err
			}
			defer conn.Close()
		}
		slowest := time.Duration(0)
		for i := range 5 {
			domain := fmt.Sprintf("new%d.example", i)
			if _, _, err := s.Mailbag("domain", "add", "first", domain); err != nil {
				return err
			}
			begun := time.Now()
			if err := s.AwaitDomain(domain, "first"); err != nil {
				return err
			}
			slowest = max(slowest, time.Since(begun))
		}
		resident, peak, err := megabytes(s.PID())
		if err != nil {
			return err
		}
		fmt.Printf("10,000 accounts, 1,000 connections: %.0f MB resident, after five reloads of the directory\n", resident)
		atMost("resident memory of mailbag-policyd at its peak", peak, 60, " MB")
		atMost("a change is in force after", slowest.Seconds(), 1, " s")
		return nil
	})
}

// copies makes so many more accounts. The command line takes a commit for each.
func copies(ledger string, n int) error {
	sqlite := exec.Command("sqlite3", ledger)
	sqlite.Stdin = strings.NewReader(fmt.Sprintf(`BEGIN;
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO account (name, mode, host, created) SELECT 'customer-' || i, 'backup', 'mx' || i || '.customer.example', 1 FROM n;
		INSERT INTO domain (name, account) SELECT name || '.example', id FROM account WHERE name <> 'first';
		INSERT INTO change (at, who, account, action) VALUES (1, 'bench', 1, 'copies');
		COMMIT;`, n))
	if out, err := sqlite.CombinedOutput(); err != nil {
		return fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return nil
}

// ask opens a policy connection and has one recipient answered on it.
func ask(socket string, n int) (net.Conn, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=a@customer-%d.example\ninstance=%x.1.1.0\n\n", n+1, n)
	_, err = conn.Read(make([]byte, 100))
	return conn, err
}

// megabytes is the resident memory of a process, now and at its peak.
func megabytes(pid int) (resident, peak float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	read := func(name string) float64 {
		kB := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
		if kB == nil {
			err = fmt.Errorf("/proc/%d/status has no %s", pid, name)
			return 0
		}
		n, _ := strconv.ParseFloat(string(kB[1]), 64)
		return n / 1024
	}
	return read("VmRSS"), read("VmHWM"), err
}
