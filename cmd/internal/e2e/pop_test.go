package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailbag/testdata/certificate"
	mtatest "mailbag/testdata/mta"
)

// beginPOP is begin with mailbag-popd running, and with a certificate.
func beginPOP(t *testing.T) *story {
	t.Helper()
	s := begin(t, mtatest.Config{Restless: true, Exim: roomy.Exim})
	s.startPOP()
	return s
}

func (s *story) startPOP() {
	s.t.Helper()
	certificate.New(s.t, "mx.example").Write(s.t, s.Certificate(), s.Key())
	s.must(s.Popd.Start())
}

// within is the story as a part of its test sees it.
func (s *story) within(t *testing.T) *story {
	part := *s
	part.t = t
	return &part
}

// pop3 adds a pop3 account and returns its password.
func (s *story) pop3(name, domain string, more ...string) string {
	s.t.Helper()
	out := s.mailbag(append([]string{"account", "add", name, "--mode", "pop3", "--domain", domain, "--generate-password"}, more...)...)
	s.inForce(domain, name)
	_, password, found := strings.Cut(out, "password: ")
	if !found {
		s.t.Fatalf("there is no password in %q", out)
	}
	return strings.TrimSpace(password)
}

// maildir is where the mail of an account's catch-all is, or of a mailbox: DOMAIN/USER.
func (s *story) maildir(account, mailbox string) string {
	if mailbox == "" {
		return filepath.Join(s.Maildirs, account, "catch-all")
	}
	return filepath.Join(s.Maildirs, account, "mailboxes", mailbox)
}

// read returns the messages in a directory, sorted.
func (s *story) read(dirs ...string) []string {
	s.t.Helper()
	all := []string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		s.must(err)
		for _, entry := range entries {
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			s.must(err)
			all = append(all, string(text))
		}
	}
	slices.Sort(all)
	return all
}

// stored is what a Maildir has, once it has so many messages.
func (s *story) stored(maildir string, n int) []string {
	s.t.Helper()
	var all []string
	s.waitFor(fmt.Sprintf("%d messages in %s", n, maildir), func() bool {
		all = s.read(filepath.Join(maildir, "new"), filepath.Join(maildir, "cur"))
		return len(all) == n
	})
	return all
}

// A box is what a client needs to know.
type box struct {
	s              *story
	user, password string
	dir            string // its own, for what it fetches and for its files
}

// write makes a file for a client, which nobody else may read: some insist on that.
func (b box) write(name, text string) string {
	b.s.t.Helper()
	path := filepath.Join(b.dir, name)
	b.s.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// run runs a client. Its home is the box's directory.
func (b box) run(name string, args ...string) string {
	b.s.t.Helper()
	out, err := b.command(name, args...).CombinedOutput()
	if err != nil {
		b.s.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (b box) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	b.s.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // what it started may hold its output
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "FETCHMAILHOME="+b.dir)
	cmd.Dir = b.dir
	return cmd
}

// clients fetch all there is in a box into dir/got, a file for each message, and delete it on the server.
var clients = map[string]func(b box){
	// In the clear, from this machine.
	"fetchmail": func(b box) { b.fetchmail("", b.toFiles()+` sslproto ""`) },
	// By STLS.
	"fetchmail with STLS": func(b box) { b.fetchmail("", b.toFiles()+" sslproto TLS1.2+ no sslcertck") },
	"getmail":             func(b box) { b.getmail("SimplePOP3Retriever", "[destination]\n"+b.intoFiles("got"), "") },
	// With TLS from the start.
	"mpop": func(b box) {
		host, port, err := net.SplitHostPort(b.s.POP3S)
		b.s.must(err)
		b.run("mpop", "--file="+b.write("mpoprc", ""), "--host="+host, "--port="+port, "--user="+b.user, "--passwordeval=cat "+b.write("password", b.password),
			"--tls=on", "--tls-starttls=off", "--tls-certcheck=off", "--auth=plain", "--keep=off", "--received-header=off", "--uidls-file="+filepath.Join(b.dir, "uidls"),
			"--delivery=maildir,"+b.maildir())
		b.s.must(os.Rename(filepath.Join(b.dir, "Maildir", "new"), filepath.Join(b.dir, "got")))
	},
	"curl": func(b box) {
		curl := func(args ...string) string {
			return b.run("curl", append([]string{"--silent", "--show-error", "--insecure", "--config", b.write("curlrc", fmt.Sprintf("user = %q\n", b.user+":"+b.password))}, args...)...)
		}
		base := "pop3s://" + b.s.POP3S + "/"
		listed := len(strings.Fields(curl(base))) / 2 // a number and a size for each message
		for i := range listed {
			text := curl(base + fmt.Sprint(i+1))
			b.write(fmt.Sprintf("got/%d", i), strings.ReplaceAll(text, "\r\n", "\n"))
		}
		for range listed {
			curl("--head", "--request", "DELE 1", base)
		}
	},
	"poplib": func(b box) {
		host, port, err := net.SplitHostPort(b.s.POP3)
		b.s.must(err)
		b.run("python3", b.write("fetch.py", `
import poplib, sys
poplib._MAXLINE = 100000
host, port, user, password, got = sys.argv[1:]
p = poplib.POP3(host, int(port))
p.user(user)
p.pass_(password)
n, size = p.stat()
total = 0
for i in range(1, n + 1):
    answer, lines, octets = p.retr(i)
    if octets != int(p.list(i).split()[2]):
        sys.exit("message %d has %d octets, LIST says %s" % (i, octets, p.list(i)))
    total += octets
    open("%s/%d" % (got, i), "wb").write(b"".join(l + b"\n" for l in lines))
    p.dele(i)
if total != size:
    sys.exit("STAT says %d octets, there were %d" % (size, total))
p.quit()
`), host, port, b.user, b.password, filepath.Join(b.dir, "got"))
	},
}

// toFiles has fetchmail write each message into a file.
func (b box) toFiles() string { return fmt.Sprintf(`mda "cat >$(mktemp -p %s/got)"`, b.dir) }

// fetchmail runs fetchmail with options of the server's and of the user's.
func (b box) fetchmail(server, user string) {
	b.s.t.Helper()
	host, port, err := net.SplitHostPort(b.s.POP3)
	b.s.must(err)
	rc := b.write(".fetchmailrc", fmt.Sprintf("set invisible\ndefaults protocol pop3 bad-header accept\npoll %s service %s %s\n"+
		"  user \"%s\" password \"%s\" %s\n  nokeep fetchall no rewrite pass8bits\n", host, port, server, b.user, b.password, user))
	cmd := b.command("fetchmail", "--fetchmailrc", rc, "--pidfile", filepath.Join(b.dir, "pid"), "--nosyslog")
	out, err := cmd.CombinedOutput()
	const noMail = 1 // fetchmail(1), EXIT CODES
	if err != nil && cmd.ProcessState.ExitCode() != noMail {
		b.s.t.Fatalf("fetchmail: %v\n%s", err, out)
	}
}

// maildir makes a Maildir for a client.
func (b box) maildir() string {
	b.s.t.Helper()
	path := filepath.Join(b.dir, "Maildir")
	for _, sub := range []string{"tmp", "new", "cur"} {
		b.s.must(os.MkdirAll(filepath.Join(path, sub), 0o700))
	}
	b.s.must(os.Remove(filepath.Join(b.dir, "got")))
	return path + "/"
}

// intoFiles has getmail write each message into a file of a directory. It delivers to no Maildir as root.
func (b box) intoFiles(dir string) string {
	return fmt.Sprintf("type = MDA_external\npath = /bin/sh\narguments = ('%s', '%s')\nallow_root_commands = true\n",
		b.write("into-file", intoFile), filepath.Join(b.dir, dir))
}

// intoFile ends once getmail catches SIGCHLD and sleeps: it takes a child that ends earlier for one that hangs.
const intoFile = `cat >"$(mktemp -p "$1")"
until grep -Eq '^SigCgt:.*[13579bdf].{4}$' /proc/$PPID/status && grep -q '^State:.S' /proc/$PPID/status; do :; done
`

func (b box) getmail(retriever, destination, envelope string) {
	b.s.t.Helper()
	host, port, err := net.SplitHostPort(b.s.POP3)
	b.s.must(err)
	rc := b.write("getmailrc", fmt.Sprintf("[retriever]\ntype = %s\nserver = %s\nport = %s\nusername = %s\npassword = %s\n%s\n%s\n"+
		"[options]\ndelete = true\ndelivered_to = false\nreceived = false\nread_all = true\nverbose = 0\n", retriever, host, port, b.user, b.password, envelope, destination))
	b.run("getmail", "--getmaildir", b.dir, "--rcfile", rc)
}

// corpus is mail that is easily damaged.
func corpus() []string {
	every := make([]byte, 0, 256)
	for c := 1; c < 256; c++ {
		if c != '\r' && c != '\n' {
			every = append(every, byte(c))
		}
	}
	return []string{
		"From: a@elsewhere.example\r\nSubject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\n",
		"From: a@elsewhere.example\r\nSubject: no body\r\n\r\n",
		"From: a@elsewhere.example\r\nSubject: eight bits \xc3\xa4\r\nContent-Type: text/plain; charset=x\r\n\r\n" + string(every) + "\r\n",
		"From: a@elsewhere.example\r\nSubject: a long line\r\n\r\n" + strings.Repeat("0123456789", 800) + "\r\nFrom here\r\n",
		"From: a@elsewhere.example\r\nSubject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 75)+"\r\n", 5000),
	}
}

// TestClientsFetchMailByteForByte has six clients fetch the same mail, each from a catch-all of its own.
func TestClientsFetchMailByteForByte(t *testing.T) {
	s := beginPOP(t)
	var to []string
	boxes := map[string]box{}
	for i, name := range slices.Sorted(maps.Keys(clients)) {
		account := fmt.Sprint("c", i)
		boxes[name] = box{s: s, user: account, password: s.pop3(account, account+".example")}
		to = append(to, "info@"+account+".example")
	}
	for _, message := range corpus() {
		s.accept(message, to...)
	}
	for name, b := range boxes {
		t.Run(name, func(t *testing.T) {
			s := s.within(t)
			b.s = s
			want := s.stored(s.maildir(b.user, ""), len(corpus()))
			for i, message := range corpus() {
				_, body, _ := strings.Cut(strings.ReplaceAll(message, "\r\n", "\n"), "\n\n")
				if !slices.ContainsFunc(want, func(text string) bool { return strings.HasSuffix(text, "\n\n"+body) }) {
					t.Errorf("message %d is not stored as it was sent", i)
				}
			}
			for _, want := range [][]string{want, {}} { // the second time there is nothing
				b.dir = s.mta.Path(fmt.Sprint(b.user, len(want)))
				s.must(os.MkdirAll(filepath.Join(b.dir, "got"), 0o700))
				clients[name](b)
				if diff := cmp.Diff(want, s.read(filepath.Join(b.dir, "got"))); diff != "" {
					t.Errorf("other mail is fetched than was stored (-want +got):\n%.4000s", diff)
				}
			}
			s.stored(s.maildir(b.user, ""), 0)
		})
	}
	for _, b := range boxes {
		s.waitFor("a record of "+b.user, func() bool { return strings.Contains(s.mailbag("sessions", b.user), " done") })
	}
}
