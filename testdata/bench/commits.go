package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mailbag/testdata/service"

	"github.com/d--j/go-milter"
)

// commits is how many messages share a commit, which is one fsync, when 100 milter sessions end one at once.
func commits(bin, dir string) error {
	account := []string{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example"}
	return beside(bin, dir, nil, [][]string{account}, func(s *service.Service) error {
		const connections, each = 100, 300
		begun := time.Now()
		errs := make(chan error, connections)
		for c := range connections {
			go func() { errs <- receive(s.Socket("milter"), c, each) }()
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

// receive has so many messages accepted in one session with the milter, as Postfix speaks to it.
func receive(socket string, connection, each int) error {
	macros := milter.NewMacroBag()
	session, err := milter.NewClient("unix", socket).Session(macros)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := goesOn(session.Conn("client.example", milter.FamilyInet, 2525, "192.0.2.7")); err != nil {
		return err
	}
	if err := goesOn(session.Helo("client.example")); err != nil {
		return err
	}
	body := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"), 64)
	for i := range each {
		macros.Set(milter.MacroRcptAddr, "a@acme.example")
		macros.Set(milter.MacroQueueId, fmt.Sprintf("%X", connection*each+i))
		for _, step := range []func() (*milter.Action, error){
			func() (*milter.Action, error) { return session.Mail("x@elsewhere.example", "") },
			func() (*milter.Action, error) { return session.Rcpt("a@acme.example", "") },
			session.DataStart,
			func() (*milter.Action, error) { return session.HeaderField("Subject", " bench", nil) },
			session.HeaderEnd,
			func() (*milter.Action, error) { return session.BodyChunk(body) },
		} {
			if err := goesOn(step()); err != nil {
				return err
			}
		}
		_, answer, err := session.End()
		if err != nil || answer.Type != milter.ActionAccept && answer.Type != milter.ActionContinue {
			return fmt.Errorf("the milter answers a message with %+v, %w", answer, err)
		}
	}
	return nil
}

func goesOn(answer *milter.Action, err error) error {
	if err == nil && answer.Type != milter.ActionContinue {
		err = fmt.Errorf("the milter does not go on but answers %+v", answer)
	}
	return err
}

// fsyncs is how many 4 kB appends a second the disk makes durable one after another.
func fsyncs(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	begun, n := time.Now(), 0
	for ; time.Since(begun) < time.Second; n++ {
		if err := durably(f); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

// durably appends 4 kB to the file.
func durably(f *os.File) error {
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return err
	}
	return f.Sync()
}
