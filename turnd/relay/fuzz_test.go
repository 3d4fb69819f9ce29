package relay

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250\r\n", "220-x\n220 y\n", "250-a\r\n251 b\r\n", "2", "999 x\r\n", "250-" + strings.Repeat("x", 5000) + "\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReader(bytes.NewReader(b))
		for {
			r, err := readReply(in)
			if err != nil {
				return
			}
			if r.Code < 200 || r.Code > 599 || len(r.Text) > maxReplyText+maxReplyLines {
				t.Errorf("%d with %d octets of text", r.Code, len(r.Text))
			}
			if i := strings.IndexFunc(r.Text, func(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }); i >= 0 {
				t.Errorf("%q is not printable", r.Text)
			}
		}
	})
}

func FuzzExtensions(f *testing.F) {
	f.Add("customer.example hello\nSIZE 1000\nPIPELINING\nchunking\n8BITMIME")
	f.Add("x\nSIZE -1\nSIZE 99999999999999999999\n\n DSN")
	f.Fuzz(func(t *testing.T, text string) {
		if _, e := parseExtensions(Reply{250, text}); e.SizeLimit < 0 || e.SizeLimit > 0 && !e.Size {
			t.Errorf("a size limit of %d", e.SizeLimit)
		}
	})
}

// Whatever the content, and however it comes in pieces: no line of it is a lone dot, and undoing the
// dots gives it back.
func FuzzStuffing(f *testing.F) {
	for _, s := range []string{"", ".", ".\r\n", "a\r\n.\r\nb", "a\n.\r\n", "\r.\r\n", "..\r\n\r\n."} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, content []byte, cut int) {
		var out bytes.Buffer
		w := stuffing{to: &out, lineStart: true}
		if cut < 0 || cut > len(content) {
			cut = 0
		}
		w.Write(content[:cut])
		w.Write(content[cut:])
		stuffed := out.String()
		if stuffed == ".\r\n" || strings.HasPrefix(stuffed, ".\r\n") || strings.Contains(stuffed, "\r\n.\r\n") {
			t.Errorf("%q ends early as %q", content, stuffed)
		}
		plain := strings.ReplaceAll("\r\n"+stuffed, "\r\n.", "\r\n")[2:]
		if plain != string(content) {
			t.Errorf("%q comes back as %q", content, plain)
		}
		if w.lineStart != (len(content) == 0 || bytes.HasSuffix(content, []byte("\r\n"))) {
			t.Errorf("behind %q a line begins: %v", content, w.lineStart)
		}
	})
}

// No chain of replies, whatever a server says, leaves a message without an answer or confirms one that
// the server did not confirm.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"220 hi\r\n250-hi\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n250 f\r\n250 g\r\n221 bye\r\n",
		"220 hi\r\n250-hi\r\n250 PIPELINING\r\n250 a\r\n250 b\r\n354 c\r\n250 d\r\n",
		"220 hi\r\n250 hi\r\n250 a\r\n550 b\r\n250 x\r\n",
		"220 hi\r\n500 hi\r\n250 hello\r\n421 bye\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		c, err := Open(t.Context(), newScripted(script), nil, Options{Hostname: "mx.provider.example"})
		if err != nil {
			return
		}
		d := c.Begin("<a@x>", []string{"<b@x>", "<c@x>"})
		io.WriteString(d, letter)
		for _, r := range commit(d) {
			if r.Code < 200 || r.Code > 599 || r.Code/100 == 3 {
				t.Errorf("reported %v", r)
			}
			if r.Positive() && !bytes.Contains(script, []byte("250")) && !bytes.Contains(script, []byte("\n2")) {
				t.Errorf("confirmed by %q", script)
			}
		}
		c.Quit()
	})
}
