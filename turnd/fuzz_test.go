package turnd

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/door"
)

// replyLine is a line of a reply (RFC 5321, section 4.2), with an enhanced status code of the same class if it has one.
var replyLine = regexp.MustCompile(`^(?:220|221|214|235|25[0-3]|334|421|4\d\d|5\d\d)[ -](?:[245]\.\d\.\d+ )?[ -~]*$`)

// FuzzSession has a stranger send anything at all.
func FuzzSession(f *testing.F) {
	for _, text := range []string{
		"EHLO a\r\nAUTH PLAIN\r\n*\r\nATRN\r\n", "HELO a\nETRN @bolt.example\nETRN #corp\n", "EHLO a\r\nAUTH CRAM-MD5\r\nAAAA\r\n",
		"EHLO a\r\nAUTH PLAIN AAAA\r\nSTARTTLS\r\n", "\r\n\x00\xff\r\n", strings.Repeat("NOOP\r\n", 120), strings.Repeat("x", maxLine+1) + "\r\n",
		"EHLO a\r\nAUTH SCRAM-SHA-256 biwsbj1jb3JwLHI9YWJj\r\nYz1iaXdz\r\n", "EHLO a\r\nAUTH LOGIN\r\nYQ==\r\nYQ==\r\n",
	} {
		f.Add([]byte(text))
	}
	front := open(f, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, theirs := net.Pipe()
		deadline := time.Now().Add(20 * time.Second)
		theirs.SetDeadline(deadline)
		go func() {
			theirs.Write(text)
			io.WriteString(theirs, "\r\n*\r\nQUIT\r\n") // out of an exchange, and out
		}()
		go func() {
			newSession(front.Server, ours, door.Client{Addr: netip.MustParseAddr("192.0.2.9")}, false).Serve()
		}()
		said, err := io.ReadAll(theirs)
		if err != nil {
			t.Fatalf("the session does not end: %v", err)
		}
		for line := range strings.Lines(string(said)) {
			if text, ended := strings.CutSuffix(line, "\r\n"); !ended || !replyLine.MatchString(text) {
				t.Errorf("the server said %q", line)
			}
			if strings.HasPrefix(line, "235") {
				t.Error("a stranger is logged in")
			}
		}
	})
}
