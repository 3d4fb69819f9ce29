package exim

import (
	"bufio"
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/mta"
)

// recorded are messages of real Exims of both formats: testdata/spool has a directory for each version. In each there is one with
// variables of ACLs, DSN, a rewritten field, and recipients who have it, and a bounce that the operator froze.
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/spool/*/*-H")
	if err != nil || len(names) != 4 {
		t.Fatalf("there are %q, %v", names, err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = text
	}
	return all
}

func idOf(name string) string { return strings.TrimSuffix(filepath.Base(name), "-H") }

func TestHeaderFilesOfBothFormatsAreRead(t *testing.T) {
	for name := range recorded(t) {
		id := idOf(name)
		r := spool("/nowhere").reader()
		e, err := r.entry(heldQueue, filepath.Dir(name), id)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := os.ReadFile(strings.TrimSuffix(name, "H") + "D")
		want := mta.Entry{ID: id, Queue: "held", Held: true, Sender: "anna.o'hara@sender.example",
			Recipients: []mta.Recipient{{Address: "later1@c1.example"}, {Address: "later2@c2.example"}}}
		if strings.Contains(string(body), ".y") {
			want = mta.Entry{ID: id, Queue: "frozen", Held: true, OnHold: true, Recipients: []mta.Recipient{{Address: "u1@c1.example"}}}
		}
		if about := time.Unix(1795669512, 0); e.Arrival.Before(about) || e.Arrival.Sub(about) > 2*time.Second || e.Arrival.Nanosecond() == 0 {
			t.Errorf("%s arrived at %s", name, e.Arrival)
		}
		// What exim4 -Mvc printed of them.
		if sizes := []int64{204, 213, 275, 284}; !slices.Contains(sizes, e.Size) {
			t.Errorf("%s has %d octets", name, e.Size)
		}
		want.Arrival, want.Size = e.Arrival, e.Size
		if !slices.Equal(e.Recipients, want.Recipients) || e.Sender != want.Sender || e.Queue != want.Queue || e.OnHold != want.OnHold || !e.Held {
			t.Errorf("got  %+v\nwant %+v", e, want)
		}
	}
}

// A file that ends where a header field does is whole for Exim, too.
func TestTornHeaderFileIsNeverRead(t *testing.T) {
	for name, whole := range recorded(t) {
		fields := whole[bytes.LastIndex(whole, []byte("\n\n"))+2:]
		read := 0
		for cut := range whole {
			if _, err := readHeader(bufio.NewReaderSize(bytes.NewReader(whole[:cut]), maxLine), idOf(name)); err == nil {
				read++
				if cut < len(whole)-len(fields) {
					t.Errorf("%s is read up to octet %d of %d", name, cut, len(whole))
				}
			} else if !errors.Is(err, errForeign) {
				t.Errorf("%s up to octet %d: %v", name, cut, err)
			}
		}
		if most := bytes.Count(fields, []byte(": ")); read == 0 || read > most {
			t.Errorf("%s is read up to %d places, and has %d fields", name, read, most)
		}
	}
}

func TestRecipientLines(t *testing.T) {
	for line, want := range map[string]string{
		"u1@c1.example":                        "u1@c1.example",
		"u1@[192.0.2.1]":                       "u1@[192.0.2.1]",
		"u1@c1.example1":                       "u1@c1.example1",
		`"a b#3"@c1.example`:                   `"a b#3"@c1.example`,
		"u1@c1.example  0,2  0,-1#3":           "u1@c1.example",
		"u1@c1.example x@y 3,12 e@f 3,0#3":     "u1@c1.example",
		"u1@c1.example a b 3,12  0,-1#3":       "u1@c1.example",
		"u1@c1.example e@f 3,7#1":              "u1@c1.example",
		"u1@c1.example rfc822;u@o 10,8#2":      "u1@c1.example",
		"":                                     "",
		"u1@c1.example 7":                      "",
		"u1@c1.example 1,2,3":                  "",
		"u1@c1.example#3":                      "",
		"u1@c1.example x 999999999999999,1#1":  "",
		"u1@c1.example  0,2  0,-1#4":           "",
		"u1@c1.example  0,2  0,-1#0":           "",
		"  0,2  0,-1#3":                        "",
		"u1@c1.example x@y 300,12 e@f 300,0#3": "",
	} {
		if got, ok := address(line); ok != (want != "") || ok && got != want {
			t.Errorf("%q is %q, %t; want %q", line, got, ok, want)
		}
	}
}

func TestReasonsInTheLogOfAMessage(t *testing.T) {
	for line, want := range map[string][2]string{
		"2026-11-26 04:52:57 u1@c1.example Q=mailbag R=turn T=turn defer (-1): Failed to connect: no": {"u1@c1.example", "Failed to connect: no"},
		"2026-11-26 04:52:57 +0100 u1@c1.example R=turn T=turn defer (-1): no":                        {"u1@c1.example", "no"},
		"2026-11-26 04:52:57 u1@c1.example <U1@c1.example> R=turn defer (110): Connection timed out":  {"u1@c1.example", "Connection timed out"},
		"2026-11-26 04:52:57 u1@c1.example R=turn T=turn defer (-53)":                                 {"u1@c1.example", "-53"},
		"2026-11-26 04:52:57 Received from x@held.example U=root P=local S=279 Q=mailbag":             {},
		"":         {},
		" defer (": {},
	} {
		address, reason, is := deferral(line)
		if is != (want[0] != "") || is && [2]string{address, reason} != want {
			t.Errorf("%q: %q, %q, %t; want %q", line, address, reason, is, want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	for name, text := range recorded(f) {
		f.Add(idOf(name), text)
	}
	f.Add("1aaaaa-000000-00", []byte("1aaaaa-000000-00-H\nx 0 0\n<>\n1 0\n-aclm x 3\na\nb\nYN a@b\nNN c@d\n0\n\n005  a: b\n"))
	f.Fuzz(func(t *testing.T, id string, text []byte) {
		h, err := readHeader(bufio.NewReaderSize(bytes.NewReader(text), maxLine), id)
		if err != nil {
			if !errors.Is(err, errForeign) {
				t.Errorf("an error of its own: %v", err)
			}
			return
		}
		if !bytes.HasPrefix(text, []byte(id+"-H\n")) {
			t.Errorf("it is that of another message than %q", id)
		}
		if h.size < 1 || h.size > int64(len(text)) || h.arrival.Before(time.Unix(0, 0)) {
			t.Errorf("%+v", h)
		}
		for _, address := range h.listed {
			if address == "" || !bytes.Contains(text, []byte("\n"+address)) {
				t.Errorf("nobody wrote the recipient %q", address)
			}
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("a@b\nc@d\n"))
	f.Add([]byte("a@b\nc@"))
	f.Add([]byte("\x00\x00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		done, err := readJournal(bufio.NewReaderSize(bytes.NewReader(text), 64), map[string]bool{"x@y": true})
		if err != nil {
			if !errors.Is(err, errForeign) {
				t.Errorf("an error of its own: %v", err)
			}
			return
		}
		for address := range maps.Keys(done) {
			if address != "x@y" && !bytes.Contains(append([]byte("\n"), text...), []byte("\n"+address+"\n")) {
				t.Errorf("nobody wrote %q", address)
			}
		}
	})
}

var idForm = regexp.MustCompile(`^[0-9A-Za-z]{6}-([0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})\z`)

func FuzzID(f *testing.F) {
	for _, id := range []string{"1xWRfU-0008FR-2O", "1xWRfV-000000008IY-1ySL", "", "1xWRfU-0008FR-2O\n", "1xWRfU-0008FR-2-", "1xWRfU00008FR-2O",
		"-Mrm", "1xWRfU-0008FR-2OO", "1xWRfV-000000008IY-1yS", "../../-000000-00", "1xWRf$-0008FR-2O"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if got, want := IsID(id), idForm.MatchString(id); got != want {
			t.Errorf("%q is a queue ID: %t, want %t", id, got, want)
		}
	})
}

func FuzzRequest(f *testing.F) {
	for _, text := range []string{"list\n\n", "release\n1xWRfU-0008FR-2O\n1xWRfV-000000008IY-1ySL\n\n", "missing\n\n", "return\n-Mrm\n\n", "rm\n\n", "list", "release\n1xWRfU-0008FR-2O", "\n\n",
		"release\r\n\r\n", strings.Repeat("x", 100), "hold\n" + strings.Repeat("1xWRfU-0008FR-2O\n", maxIDs+1) + "\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		verb, ids, err := readRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			return
		}
		if verbs[verb] == nil || len(ids) > maxIDs || !bytes.HasPrefix(text, []byte(strings.Join(append([]string{verb}, append(ids, "")...), "\n")+"\n")) {
			t.Errorf("%q with %d messages is taken", verb, len(ids))
		}
		for _, id := range ids {
			if !idForm.MatchString(id) {
				t.Errorf("%q is taken as a queue ID", id)
			}
		}
	})
}

func FuzzDeferral(f *testing.F) {
	f.Add("2026-11-26 04:52:57 u1@c1.example Q=mailbag R=turn T=turn defer (-1): Failed to connect: no")
	f.Add(" defer (")
	f.Fuzz(func(t *testing.T, line string) {
		if address, reason, is := deferral(line); is && (!strings.Contains(line, address) || !strings.Contains(line, reason)) {
			t.Errorf("%q: %q, %q", line, address, reason)
		}
	})
}

func FuzzInterface(f *testing.F) {
	for _, entry := range []string{"127.0.0.1", "::0", "192.0.2.1.25", "[2001:db8::1]:25", "2001:db8::1.25", "[::1]", "]", ".", "1.2.3.4.99999"} {
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		if addr, _, ok := interfaceOf(entry); ok && (!addr.IsValid() || reached(addr).IsUnspecified()) {
			t.Errorf("%q is %s", entry, addr)
		}
	})
}
