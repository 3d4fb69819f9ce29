package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"mailbag/testdata/dovecot"
	"mailbag/testdata/service"
)

// password of every log-in here; Dovecot takes any.
const password = "open sesame"

// besideDovecot runs measure with mailbag-popd and a private Dovecot, which have the mailboxes of these users in common.
func besideDovecot(bin, dir string, users []string, measure func(*service.Service, *dovecot.Instance) error) (err error) {
	s, err := service.New(bin, dir, nil)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"account", "add", "acme", "--mode", "pop3", "--domain", "acme.example", "--catch-all", "no"},
		{"mailbox", "add", "acme", "first@acme.example", "--password-stdin"},
	} {
		cmd := s.Command("mailbag", args...)
		cmd.Stdin = strings.NewReader(password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("mailbag %s: %w: %s", args, err, out)
		}
	}
	own := filepath.Join(dir, "dovecot")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	d, err := dovecot.New(own)
	if err != nil {
		return err
	}
	if err := shareMailboxes(s, d, users); err != nil {
		return err
	}
	if err := s.Popd.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Popd.Stop()) }()
	if err := d.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	return measure(s, d)
}

// shareMailboxes gives acme a mailbox for each user, whose Maildir is that user's of Dovecot's. The command line
// takes a commit for each.
func shareMailboxes(s *service.Service, d *dovecot.Instance, users []string) error {
	var sql strings.Builder
	sql.WriteString("BEGIN;\n")
	domain := filepath.Join(s.Maildirs, "acme", "mailboxes", "acme.example")
	if err := os.MkdirAll(domain, 0o755); err != nil {
		return err
	}
	for _, user := range users {
		fmt.Fprintf(&sql, "INSERT INTO mailbox (address, account, domain, created) SELECT '%[1]s@acme.example', account, domain, created FROM mailbox WHERE address = 'first@acme.example';\n"+
			"INSERT INTO credential SELECT '%[1]s@acme.example', account, salt, iterations, stored_key, server_key, cram_md5, changed FROM credential WHERE login = 'first@acme.example';\n", user)
		for _, sub := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(d.Users, user, sub), 0o700); err != nil {
				return err
			}
		}
		if err := os.Symlink(filepath.Join(d.Users, user), filepath.Join(domain, user)); err != nil {
			return err
		}
	}
	sql.WriteString("COMMIT;\n")
	cmd := exec.Command("sqlite3", s.Ledger)
	cmd.Stdin = strings.NewReader(sql.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sqlite3: %w: %s", err, out)
	}
	return d.Own()
}

// Names of files: as mailbag-popd makes them, and as programs do that put no sizes into them.
const (
	ours  = "%d.M%06dP4711Q%dR0123abcd.mx.example,S=%d,W=%d"
	plain = "%d.M%06dP4711Q%d.mx.example"
)

// fill puts so many messages of a size into a user's new.
func fill(d *dovecot.Instance, user, names string, messages, size int) error {
	line := strings.Repeat("x", 75) + "\n"
	text := "From: somebody@elsewhere.example\nSubject: bench\n\n" + strings.Repeat(line, max(0, size/len(line)))
	sizes := []any{len(text), len(text) + strings.Count(text, "\n")}
	for i := range messages {
		// As clocks do, microseconds differ in all their digits: Dovecot's hash of names is slow on ones that do not.
		of := append([]any{1700000000 + i/10, i * 7919 % 1_000_000, i}, sizes...)
		name := fmt.Sprintf(names, of[:strings.Count(names, "%")]...)
		if err := os.WriteFile(filepath.Join(d.Users, user, "new", name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return d.Own(user)
}

// A server is one of the two, as a client sees it.
type server struct {
	name string
	pop3 string
	lmtp string
	user func(name string) string
}

func servers(s *service.Service, d *dovecot.Instance) (popd, theirs server) {
	return server{"mailbag-popd", s.POP3, s.Deliver(), func(name string) string { return name + "@acme.example" }},
		server{"Dovecot", d.POP3, d.LMTP, func(name string) string { return name }}
}

// A reader is a POP3 client that does no more than it must.
type reader struct {
	net.Conn
	in *bufio.Reader
}

// enter connects, from an address of this machine, and logs in.
func (s server) enter(user, from string) (*reader, error) {
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", s.pop3)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(5 * time.Minute))
	r := &reader{conn, bufio.NewReader(conn)}
	_, err = r.line()
	for _, command := range []string{"USER " + s.user(user), "PASS " + password} {
		if err == nil {
			_, err = r.say(command)
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return r, nil
}

func (r *reader) line() (string, error) {
	line, err := r.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = errors.New(line)
	}
	return line, err
}

func (r *reader) say(command string) (string, error) {
	if _, err := fmt.Fprint(r, command, "\r\n"); err != nil {
		return "", err
	}
	return r.line()
}

// quit ends the session, and waits until the server has ended it too.
func (r *reader) quit() error {
	defer r.Close()
	if _, err := r.say("QUIT"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r.in)
	return err
}

// endings reads so many answers of several lines, and returns the octets of all.
func (r *reader) endings(n int, each func()) (octets int64, err error) {
	end := []byte("\r\n.\r\n")
	block := make([]byte, 1<<20)
	held := 0
	for n > 0 {
		got, err := r.in.Read(block[held:])
		if err != nil {
			return octets, err
		}
		octets += int64(got)
		rest := block[:held+got]
		for {
			at := bytes.Index(rest, end)
			if at < 0 {
				break
			}
			// The next answer may begin with what ended this one.
			rest = rest[at+len(end):]
			n--
			each()
		}
		held = copy(block, rest[max(0, len(rest)-len(end)+1):])
	}
	return octets, nil
}
