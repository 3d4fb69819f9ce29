package policy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRequestIsReadInAnyOrderWithUnknownAttributes(t *testing.T) {
	t.Parallel()
	var r request
	err := r.parse([]byte("size=12\nfuture=x=y\nempty=\nrecipient=a=b@acme.example\nfuture=again\nprotocol_state=RCPT\n" +
		"recipient_count=3\ninstance=1.2.3.4\nqueue_id=ABC\nclient_address=::1\netrn_domain=d\nrequest=smtpd_access_policy\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{string(r.state), string(r.recipient), string(r.clientAddress), string(r.etrnDomain)}
	want := []string{"RCPT", "a=b@acme.example", "::1", "d"}
	if !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

// badRequests are what a policy client may send that is none, and words of the log line about it.
var badRequests = []struct{ name, text, reason string }{
	{"garbage", "EHLO mail.example\r\n\r\n\n", "not name=value"},
	{"empty", "\n", "without attributes"},
	{"other protocol", "request=junk_policy\nprotocol_state=RCPT\n\n", "not request=smtpd_access_policy"},
	{"no protocol", "protocol_state=RCPT\n\n", "not request=smtpd_access_policy"},
	{"no name", "request=smtpd_access_policy\n=RCPT\n\n", "not name=value"},
	{"NUL", "request=smtpd_access_policy\nprotocol_state=RC\x00PT\n\n", "NUL"},
	{"NUL at once", "\x00\x00\x00\x00", "NUL"},
	{"twice", requestText("recipient=a@b", "recipient=c@d"), "recipient twice"},
	{"megabyte line", "request=smtpd_access_policy\nhelo_name=" + strings.Repeat("x", 1<<20), "longer than 65536 octets"},
	{"no empty line", strings.Repeat("sender="+strings.Repeat("x", 90)+"\n", 2000), "longer than 65536 octets"},
	{"attributes", requestText(strings.Repeat("a=b\n", attributeLimit) + "a=b"), "more than 256 attributes"},
}

func TestBadRequestIsNamed(t *testing.T) {
	t.Parallel()
	for _, test := range badRequests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := readAll([]byte(test.text), len(test.text))
			if _, is := errors.AsType[badInput](err); !is || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("error %v, want one with %q", err, test.reason)
			}
		})
	}
}

// readAll reads every request in text as a connection does that gets it in pieces of a size.
func readAll(text []byte, piece int) (requests []request, err error) {
	start, searched := 0, 0
	for end := 0; end < len(text); {
		end = min(end+piece, len(text))
		for end > start {
			held := text[start:end]
			n, err := frameRequest(held, searched)
			if err != nil {
				return requests, err
			}
			if n == 0 {
				if len(held) >= requestLimit {
					return requests, badInput("a request is longer than 65536 octets")
				}
				searched = len(held)
				break
			}
			var r request
			if err := r.parse(held[:n]); err != nil {
				return requests, err
			}
			requests = append(requests, r)
			start, searched = start+n, 0
		}
	}
	return requests, nil
}

// FuzzRequest looks for a text that reads differently in pieces than whole, and for a panic.
func FuzzRequest(f *testing.F) {
	for _, test := range badRequests {
		if len(test.text) < 1000 {
			f.Add([]byte(test.text), 1)
		}
	}
	f.Add([]byte(requestText("protocol_state=RCPT", "recipient=a@b")+requestText("protocol_state=VRFY")), 7)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		if piece < 1 || piece > len(text) {
			piece = 1
		}
		whole, wholeErr := readAll(text, len(text))
		pieces, piecesErr := readAll(text, piece)
		if len(pieces) != len(whole) || (wholeErr == nil) != (piecesErr == nil) {
			// A NUL may be seen before the requests ahead of it are answered, or after.
			if bytes.IndexByte(text, 0) < 0 {
				t.Fatalf("%q: %d requests and %v, in pieces of %d %d and %v", text, len(whole), wholeErr, piece, len(pieces), piecesErr)
			}
			return
		}
		for i := range whole {
			if !bytes.Equal(whole[i].recipient, pieces[i].recipient) || !bytes.Equal(whole[i].clientAddress, pieces[i].clientAddress) {
				t.Fatalf("%q reads differently in pieces of %d", text, piece)
			}
		}
	})
}
