package powerloss

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/d--j/go-milter"

	"mailbag/testdata/blackout"
	"mailbag/testdata/service"
)

const password = "open sesame"

// host is a service whose ledger and Maildirs are on the disk that forgets, and what it answered.
type host struct {
	*service.Service
	t *testing.T

	counted answers // messages, by queue ID
	stored  answers // messages in the mailbox, by subject

	list, listed int // the newest list of recipients that was asked for, and of which it was said that it is in force
}

// TestWhatAHostAnsweredIsThereAfterThePowerFailed has mail counted and delivered, fetched and deleted, and lists of recipients
// replaced.
func TestWhatAHostAnsweredIsThereAfterThePowerFailed(t *testing.T) {
	t.Parallel()
	chance := chance(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	power := blackout.Mount(t, disk, blackout.Options{})
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "mailbag/cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, out)
	}
	s, err := service.New(bin, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Service: s, t: t}
	h.move(disk)
	h.mailbag("", "account", "add", "acme", "--mode", "backup", "--domain", "acme.example")
	h.mailbag(password+"\n", "account", "add", "dent", "--mode", "pop3", "--domain", "dent.example", "--catch-all", "yes", "--password-stdin")
	t.Cleanup(h.kill)
	shown := func() bool {
		return h.counted.count(answered) > 0 && h.stored.count(answered) > 0 && h.stored.count(removed) > 0 && h.listed > 0
	}
	for i := range failures(shown) {
		failed := power.Fail(1 + chance.IntN(2000))
		l := &load{over: make(chan struct{})}
		for _, d := range []*service.Daemon{s.Daemon, s.Popd} {
			if err := d.Launch(); err != nil {
				t.Fatal(err)
			}
		}
		for range 4 {
			l.keep(h.count)
			l.keep(h.deliver)
		}
		l.keep(h.fetch)
		l.keep(h.replace)
		<-failed
		h.kill()
		l.end()
		reboot()
		if err := power.Return(chance); err != nil {
			t.Fatal(err)
		}
		if h.look(); t.Failed() {
			t.Logf("%s said:\n%s\n%s said:\n%s", h.Program, h.Log(), h.Popd.Program, h.Popd.Log())
			t.Fatalf("after the power failed %d times", i+1)
		}
		progress(t, i+1)
	}
	shows(t, h.counted.count(answered), "messages counted")
	shows(t, h.stored.count(answered), "messages stored")
	shows(t, h.stored.count(removed), "messages deleted")
	shows(t, h.listed, "lists of recipients replaced")
}

// move has ledger and Maildirs elsewhere.
func (h *host) move(dir string) {
	h.t.Helper()
	settings, err := os.ReadFile(h.Config)
	if err != nil {
		h.t.Fatal(err)
	}
	text := string(settings)
	for _, at := range []*string{&h.Ledger, &h.Maildirs} {
		there := filepath.Join(dir, filepath.Base(*at))
		text = strings.ReplaceAll(text, fmt.Sprintf("%q", *at), fmt.Sprintf("%q", there))
		*at = there
	}
	if err := os.WriteFile(h.Config, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) kill() {
	h.Popd.Kill()
	h.Kill()
}

// mailbag runs the command line, which has to succeed.
func (h *host) mailbag(stdin string, args ...string) string {
	h.t.Helper()
	out, err := h.say(stdin, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *host) say(stdin string, args ...string) (string, error) {
	cmd := h.Command("mailbag", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("mailbag %s: %w: %s%s", strings.Join(args, " "), err, out, &errs)
	}
	return string(out), nil
}

// count has messages accepted in a session with the milter, as an MTA speaks to it.
func (h *host) count() error {
	macros := milter.NewMacroBag()
	session, err := milter.NewClient("unix", h.Socket("milter")).Session(macros)
	if err != nil {
		return err
	}
	defer session.Close()
	begin := []func() (*milter.Action, error){
		func() (*milter.Action, error) {
			return session.Conn("client.example", milter.FamilyInet, 2525, "192.0.2.7")
		},
		func() (*milter.Action, error) { return session.Helo("client.example") },
	}
	if err := goOn(begin); err != nil {
		return err
	}
	for {
		id := h.counted.ask()
		macros.Set(milter.MacroRcptAddr, "a@acme.example")
		macros.Set(milter.MacroQueueId, id)
		if err := goOn([]func() (*milter.Action, error){
			func() (*milter.Action, error) { return session.Mail("x@elsewhere.example", "") },
			func() (*milter.Action, error) { return session.Rcpt("a@acme.example", "") },
			session.DataStart,
			func() (*milter.Action, error) { return session.HeaderField("Subject", " "+id, nil) },
			session.HeaderEnd,
			func() (*milter.Action, error) { return session.BodyChunk([]byte("x\r\n")) },
			func() (*milter.Action, error) { _, answer, err := session.End(); return answer, err },
		}); err != nil {
			return err
		}
		h.counted.is(id, answered)
	}
}

func goOn(steps []func() (*milter.Action, error)) error {
	for _, step := range steps {
		answer, err := step()
		if err != nil {
			return err
		}
		if answer.Type != milter.ActionContinue && answer.Type != milter.ActionAccept {
			return fmt.Errorf("the milter answers %+v", answer)
		}
	}
	return nil
}

// body is that of each message in the mailbox: several pages, so that not all of it is on the disk at once.
var body = strings.Repeat("more than what is written at a time\r\n", 400)

// deliver has messages put into the mailbox.
func (h *host) deliver() error {
	conn, err := net.Dial("unix", h.Deliver())
	if err != nil {
		return err
	}
	defer conn.Close()
	c := textproto.NewConn(conn)
	expect := func(code int) {
		if err == nil {
			_, _, err = c.ReadResponse(code)
		}
	}
	expect(220)
	fmt.Fprint(conn, "LHLO mta.example\r\n")
	expect(250)
	for err == nil {
		subject := h.stored.ask()
		fmt.Fprint(conn, "MAIL FROM:<x@elsewhere.example>\r\nRCPT TO:<ford@dent.example>\r\nDATA\r\n")
		expect(250)
		expect(250)
		expect(354)
		fmt.Fprintf(conn, "Subject: %s\r\n\r\n%s.\r\n", subject, body)
		if expect(250); err == nil {
			h.stored.is(subject, answered)
		}
	}
	return err
}

// fetch has messages of the mailbox read and deleted, so many that it does not grow for long.
func (h *host) fetch() error {
	conn, err := net.Dial("tcp", h.POP3)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := textproto.NewReader(bufio.NewReader(conn))
	say := func(format string, args ...any) (line string) {
		if err == nil && format != "" {
			_, err = fmt.Fprintf(conn, format+"\r\n", args...)
		}
		if err == nil {
			if line, err = in.ReadLine(); err == nil && !strings.HasPrefix(line, "+OK") {
				err = errors.New(line)
			}
		}
		return line
	}
	say("")
	say("USER dent")
	say("PASS %s", password)
	var messages int
	fmt.Sscanf(say("STAT"), "+OK %d", &messages)
	var deleted []string
	for n := 1; n <= min(messages, 100) && err == nil; n++ {
		if say("RETR %d", n); err != nil {
			break
		}
		var text []byte
		if text, err = in.ReadDotBytes(); err == nil {
			if subject, ok := whole(strings.ReplaceAll(string(text), "\n", "\r\n")); ok {
				deleted = append(deleted, subject)
				say("DELE %d", n)
			}
		}
	}
	if err != nil {
		return err
	}
	for _, subject := range deleted {
		h.stored.is(subject, removing)
	}
	if say("QUIT"); err == nil {
		for _, subject := range deleted {
			h.stored.is(subject, removed)
		}
	}
	return err
}

// whole returns the subject of a message, and whether all of it is there.
func whole(message string) (subject string, ok bool) {
	_, rest, _ := strings.Cut(message, "Subject: ")
	subject, rest, _ = strings.Cut(rest, "\r\n")
	return subject, strings.HasSuffix(rest, body)
}

// recipients is how long each list is: more than what is written at a time.
const recipients = 3000

// replace has a list of recipients put in the place of another.
func (h *host) replace() error {
	h.list++
	var list strings.Builder
	for i := range recipients {
		fmt.Fprintf(&list, "list%d-%d@acme.example\n", h.list, i)
	}
	_, err := h.say(list.String(), "recipient", "import", "acme", "-", "--replace")
	if err == nil {
		h.listed = h.list
	}
	return err
}

// look compares what is there with what was answered.
func (h *host) look() {
	h.t.Helper()
	if out, err := h.say("", "database", "check"); err != nil {
		h.t.Error(err, out)
	}
	var ids []string
	for i, line := range strings.Split(h.mailbag("", "usage", "acme", "--messages-csv"), "\n") {
		if fields := strings.Split(strings.TrimSuffix(line, "\r"), ","); i > 0 && len(fields) > 1 {
			ids = append(ids, fields[1])
		}
	}
	wrong(h.t, "of the messages counted ", h.counted.compare(ids))
	wrong(h.t, "of the messages stored ", h.stored.compare(h.mailbox()))
	var first, last int
	list := strings.Fields(h.mailbag("", "recipient", "list", "acme"))
	for i, address := range list {
		var n, of int
		fmt.Sscanf(address, "list%d-%d@", &of, &n)
		if i == 0 {
			first = of
		}
		last = of
	}
	if first != last || len(list) != recipients && first != 0 || first < h.listed {
		h.t.Errorf("there are %d recipients, of list %d to list %d; list %d is in force, list %d was asked for", len(list), first, last, h.listed, h.list)
	}
	h.listed = first
}

// mailbox returns the subjects of the messages that a client would be shown. Another program reads them: see [blackout.Mount].
func (h *host) mailbox() (subjects []string) {
	h.t.Helper()
	cmd := exec.Command("find", filepath.Dir(h.Maildirs), "-regex", ".*/dent/catch-all/\\(new\\|cur\\)/.*", "-exec", "awk", `FNR == 1 { printf "\f" } { print }`, "{}", "+")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatal(err)
	}
	for text := range strings.SplitSeq(strings.ReplaceAll(string(out), "\n", "\r\n"), "\f") {
		if text == "" {
			continue
		}
		subject, ok := whole(strings.ReplaceAll(text, "\r\r\n", "\r\n"))
		if !ok {
			h.t.Errorf("a message in the mailbox is not whole: %d octets, %.100q", len(text), text)
		}
		subjects = append(subjects, subject)
	}
	return subjects
}
