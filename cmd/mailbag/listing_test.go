package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestTablesLineUpOnATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &console{out: bufio.NewWriter(&out)}
	listing := table{heads: []string{"NAME", ">N", "END"}}
	// Each name has the columns that a terminal gives to it.
	for _, name := range []string{"four", "日本", "e\u0301tez", "👩‍👩‍👧‍👦ab", "🇩🇪ab", "ﾊﾝｶｸ"} {
		listing.add(name, "1", "x")
	}
	listing.add("a\x1bb\u202e", "22", "y\u0085")
	c.table(&listing)
	c.out.Flush()
	const want = `NAME           N  END
four           1  x
日本           1  x
étez           1  x
👩‍👩‍👧‍👦ab           1  x
🇩🇪ab           1  x
ﾊﾝｶｸ           1  x
a\x1bb\u202e  22  y\u0085
`
	if got := out.String(); got != strings.ReplaceAll(want, "é", "e\u0301") {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
}
