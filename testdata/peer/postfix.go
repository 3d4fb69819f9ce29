package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// Postfix is a Postfix as a customer's mail server, with the limits that it has by itself: it hangs up at the twentieth
// error. It knows the addresses that it was given, answers 550 to all others, and puts every message into one Maildir.
type Postfix struct {
	*postfixtest.Instance
}

// RunPostfix starts a Postfix that knows these users for a test. It is stopped and removed when the test ends.
func RunPostfix(t testing.TB, users []string) *Postfix {
	t.Helper()
	domains := map[string]bool{}
	list, known := "", ""
	for _, u := range users {
		if _, domain, _ := strings.Cut(u, "@"); !domains[domain] {
			domains[domain] = true
			list += domain + " "
		}
		known += u + " box/\n"
	}
	in := postfixtest.Prepare(t, postfixtest.Config{Main: map[string]string{
		"myhostname":              "mail.customer.example",
		"smtpd_error_sleep_time":  "1s", // its default, which the tests' instances go without
		"virtual_mailbox_domains": list,
		"virtual_uid_maps":        fmt.Sprint("static:", nobody),
		"virtual_gid_maps":        fmt.Sprint("static:", nobody),
	}})
	p := &Postfix{in}
	if err := p.keepMail(known); err != nil {
		t.Fatal(err)
	}
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Postfix) keepMail(known string) error {
	users := p.Path("etc", "users")
	if err := os.WriteFile(users, []byte(known), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(p.mail(), 0o755); err != nil {
		return err
	}
	if err := os.Chown(p.mail(), nobody, nobody); err != nil {
		return err
	}
	if err := p.Set("virtual_mailbox_base", p.mail()); err != nil {
		return err
	}
	return p.Set("virtual_mailbox_maps", "texthash:"+users)
}

func (p *Postfix) mail() string { return p.Path("mail") }

// Messages are what was delivered so far, in no order, with LF line ends and Postfix's headers in front.
func (p *Postfix) Messages() ([][]byte, error) { return maildir(filepath.Join(p.mail(), "box")) }
