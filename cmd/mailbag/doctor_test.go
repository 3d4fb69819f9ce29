package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
	"mailbag/testdata/certificate"
)

func TestDoctorFindsAServiceThatIsNotThereIll(t *testing.T) {
	t.Parallel()
	w := newWorkplace(t, storyMail{})
	status, out, _ := w.run("doctor", "--json")
	if status != failed {
		t.Errorf("the status is %d", status)
	}
	var found []diagnosis
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatal(err)
	}
	results := map[string]verdict{}
	for _, d := range found {
		if results[d.Part] != illness {
			results[d.Part] = d.Result
		}
		if d.Result != well && (d.Text == "" || d.Remedy == "") {
			t.Errorf("%+v does not say what is so and what to do", d)
		}
	}
	if results["settings"] != well || results["ledger"] != illness || results["policyd"] != illness {
		t.Errorf("the results are %v", results)
	}
	if status, out, _ := w.run("doctor"); status != failed || !strings.Contains(out, "failed   ledger      there is no ledger "+w.path("mailbag.db")) {
		t.Errorf("doctor: %d\n%s", status, out)
	}
}

func TestCertificateIsJudgedByWhatCustomersWouldSay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
	if d := examineCertificate(files, "mx.example", time.Now()); d.Result != illness || !strings.Contains(d.Text, "TLS is not offered") {
		t.Errorf("without files: %+v", d)
	}
	certificate.New(t, "mx.example").Write(t, files.Certificate, files.Key)
	if d := examineCertificate(files, "mx.example", time.Now()); d.Result != doubt || !strings.Contains(d.Text, "signs itself") {
		t.Errorf("one that signs itself: %+v", d)
	}
	if d := examineCertificate(files, "mx.example", time.Now().Add(48*time.Hour)); d.Result != illness || !strings.Contains(d.Text, "ended on") {
		t.Errorf("one that ended: %+v", d)
	}
}

func TestCertificateIsLookedAtWhereCustomersGetIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var s settings.Settings
	s.TLS = settings.TLS{Certificate: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
	shown, other := certificate.New(t, "mx.example"), certificate.New(t, "mx.example")
	config := &tls.Config{Certificates: []tls.Certificate{shown.Pair}}
	s.POP.ListenTLS = []settings.Address{answering(t, config, false, "+OK\r\n")}
	s.Turn.Listen = []settings.Address{startingTLS(t, config)}
	examined := func() (texts []string) {
		for _, d := range examineTLS(t.Context(), &s, "mx.example", time.Now())[1:] {
			texts = append(texts, string(d.Result)+": "+d.Text)
		}
		return texts
	}
	shown.Write(t, s.TLS.Certificate, s.TLS.Key)
	if got := examined(); got != nil {
		t.Errorf("where the daemons show what is in the files: %q", got)
	}
	other.Write(t, s.TLS.Certificate, s.TLS.Key)
	got := examined()
	if len(got) != 2 || !strings.HasPrefix(got[0], "warning: mailbag-turnd shows another certificate") || !strings.HasPrefix(got[1], "warning: mailbag-popd shows another certificate") {
		t.Errorf("where they show another one: %q", got)
	}
	s.POP.ListenTLS, s.Turn.Listen = nil, []settings.Address{startingTLS(t, nil)}
	if got := examined(); len(got) != 1 || !strings.HasPrefix(got[0], "failed: mailbag-turnd offers no TLS") {
		t.Errorf("where there is no STARTTLS: %q", got)
	}
}

// startingTLS runs a server that knows EHLO, QUIT and, with a configuration, STARTTLS.
func startingTLS(t *testing.T, config *tls.Config) settings.Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(c net.Conn) {
		io.WriteString(c, "220 mx\r\n")
		for lines := bufio.NewReader(c); ; {
			line, err := lines.ReadString('\n')
			switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
			case err != nil:
				return
			case verb == "STARTTLS" && config != nil:
				io.WriteString(c, "220 go on\r\n")
				c = tls.Server(c, config)
				lines = bufio.NewReader(c)
			case verb == "QUIT":
				io.WriteString(c, "221 bye\r\n")
				return
			case verb == "EHLO":
				io.WriteString(c, "250 mx\r\n")
			default:
				io.WriteString(c, "502 no\r\n")
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	return settings.Address{Network: "tcp", Address: l.Addr().String()}
}

func TestKeyIsReadableOnlyByWhomItIsFor(t *testing.T) {
	t.Parallel()
	const other = "nobody"
	if _, err := user.Lookup(other); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} { // the first is closed to others
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path string
		mode os.FileMode
		want string
	}{
		{key, 0o600, "the daemons' user nobody cannot read " + key}, {key, 0o604, ""}, {dir, 0o700, "cannot read " + key + ": " + dir + " has the mode 0700"}, {dir, 0o755, ""},
	} {
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		if got := unreadable(key, other); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s with the mode %04o: %q", c.path, c.mode, got)
		}
	}
}

// answering runs a server that says something to each client, having read a line where that is asked for.
func answering(t *testing.T, config *tls.Config, ask bool, answer string) settings.Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			r := bufio.NewReader(c)
			if ask {
				r.ReadString('\n')
			}
			io.WriteString(c, answer)
			r.ReadString('\n')
			c.Close()
		}
	}()
	return settings.Address{Network: "tcp", Address: l.Addr().String()}
}

func TestDaemonIsWellWhenItSaysWhatItShould(t *testing.T) {
	t.Parallel()
	secure := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mx.example").Pair}}
	for name, c := range map[string]struct {
		at       settings.Address
		question question
		err      string
	}{
		"a greeting":          {answering(t, nil, false, "220 mx\r\n"), question{end: '\n', answer: "220 ", farewell: "QUIT\r\n"}, ""},
		"a greeting by TLS":   {answering(t, secure, false, "+OK\r\n"), question{end: '\n', answer: "+OK", farewell: "QUIT\r\n", tls: true}, ""},
		"an answer":           {answering(t, nil, true, "6:OK yes,"), question{end: ',', text: "question\n", answer: ":OK "}, ""},
		"another answer":      {answering(t, nil, false, "421 go away\r\n"), question{end: '\n', answer: "220 "}, `the answer is "421 go away\r\n"`},
		"an answer cut off":   {answering(t, nil, true, "22"), question{end: '\n', text: "a\nb\n", answer: "220 "}, `the answer "22" is cut off`},
		"nobody":              {settings.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, question{end: '\n'}, "nobody answers"},
		"no TLS where it is ": {answering(t, nil, false, "220 mx\r\n"), question{end: '\n', answer: "220 ", tls: true}, "no answer"},
	} {
		c.question.at = c.at
		err := c.question.ask(t.Context())
		if fmt.Sprint(err) != "<nil>" && c.err == "" || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
