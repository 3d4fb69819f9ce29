package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func listOf(text string) (keys []string, err error) {
	for line, err := range readAddresses(strings.NewReader(text), "list") {
		if err != nil {
			return keys, err
		}
		keys = append(keys, line.address.Key())
	}
	return keys, nil
}

func TestReadAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       []string
		err        string
	}{
		{"nothing", "", nil, ""},
		{"comments and space", "# people\n\n  a@x.example \n\t#b@x.example\n", []string{"a@x.example"}, ""},
		{"no line end at the end", "a@x.example\nb@x.example", []string{"a@x.example", "b@x.example"}, ""},
		{"from Windows", "\ufeffa@x.example\r\nB@X.example\r\n", []string{"a@x.example", "b@x.example"}, ""},
		{"quoted", `"a b"@x.example`, []string{"a b@x.example"}, ""},
		{"bad line", "a@x.example\n\nnobody\nb@x.example\n", []string{"a@x.example"}, "list:3: "},
		{"a number sign in an address", "a#1@x.example", []string{"a#1@x.example"}, ""},
		{"long line", "a@x.example\n#" + strings.Repeat("x", maxListLine), []string{"a@x.example"}, "list:2: the line is longer"},
		{"NUL", "a\x00@x.example", nil, "list:1: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := listOf(test.text)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("got the error %v, want %q", err, test.err)
			}
		})
	}
}

func FuzzReadAddresses(f *testing.F) {
	for _, seed := range []string{"", "a@x.example\n", "# c\r\n\r\nb@x.example", "\ufeff\"q q\"@bücher.example\n", "x\n", "@\n", "a@b@c.example", strings.Repeat("y", 2000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		last, lines := 0, bytes.Count(text, []byte("\n"))+1
		for line, err := range readAddresses(bytes.NewReader(text), "list") {
			if last++; last > lines {
				t.Fatalf("%d entries of %d lines", last, lines)
			}
			if err != nil {
				if !strings.HasPrefix(err.Error(), line.place+": ") {
					t.Fatalf("the error %q does not say where", err)
				}
				break
			}
			again, err := listOf(line.address.String())
			if err != nil || len(again) != 1 || again[0] != line.address.Key() {
				t.Fatalf("%q is read again as %q, %v", line.address, again, err)
			}
		}
	})
}
