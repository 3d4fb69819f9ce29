package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
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
