package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

const none = time.Duration(-1) // no milter

// postfix is a Postfix with a milter in front that takes so much CPU time for each message, or none, and with mailbag or not.
func postfix(filter time.Duration, mailbag bool) func(v *variant, bin, dir string, port int, measure func() error) error {
	return func(v *variant, bin, dir string, port int, measure func() error) error {
		// Else Postfix holds its clients back by a second each while deliveries are behind, in some runs and not in others.
		settings := map[string]string{"in_flow_delay": "0"}
		if !mailbag {
			settings["relay_domains"] = "acme.example"
			settings["transport_maps"] = fmt.Sprintf("inline:{ { acme.example = relay:[127.0.0.1]:%d } }", port)
		}
		if filter != none {
			settings["smtpd_milters"] = "unix:private/filter"
		}
		postfix, err := newPostfix(filepath.Join(dir, "postfix"), settings)
		if err != nil {
			return err
		}
		v.mta = postfix
		if filter != none {
			milter, err := startMilter(postfix.Private("filter"), filter)
			if err != nil {
				return err
			}
			defer end(milter)
		}
		if !mailbag {
			return measure()
		}
		return beside(bin, dir, postfix, [][]string{backup(port)}, func(s *service.Service) error {
			v.service, v.accounts = s, []string{"acme"}
			return measure()
		})
	}
}

// backup is the account of the mail that is accepted, at the port.
func backup(port int) []string {
	return []string{"account", "add", "acme", "--mode", "backup", "--domain", "acme.example", "--host", fmt.Sprintf("127.0.0.1:%d", port)}
}

func newPostfix(dir string, settings map[string]string) (*postfixtest.Instance, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return postfixtest.New(dir, postfixtest.Config{Main: settings})
}
