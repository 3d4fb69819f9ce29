package popd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDialogues plays testdata/*.dialogue with a mailbox of three messages. In a script,
//
//	-> text     sends text and CRLF
//	<- text     reads a line, which has to begin with text
//	<= text     reads lines up to one that does
//	<x          the server has to close the connection
//	#           is a comment
//
// and $NAME is replaced.
func TestDialogues(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/*.dialogue")
	if err != nil || len(scripts) == 0 {
		t.Fatal("there are no scripts", err)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Parallel()
			d := openDesk(t, nil)
			vars, sizes := map[string]string{}, [3]int{}
			for i, subject := range []string{"one", "two", "three"} {
				text := "Subject: " + subject + "\r\n\r\nfirst line\r\n.dot\r\nlast line\r\n"
				d.put(text, "arthur@dent.example")
				list, err := d.store.Maildir("dent", "arthur@dent.example").List()
				d.must(err)
				sizes[i] = len(head("arthur@dent.example") + text)
				vars[fmt.Sprint("SIZE", i+1)], vars[fmt.Sprint("ID", i+1)] = fmt.Sprint(sizes[i]), list.Messages[i].UniqueID()
			}
			vars["TOTAL"], vars["REST"] = fmt.Sprint(sizes[0]+sizes[1]+sizes[2]), fmt.Sprint(sizes[0]+sizes[2])
			d.play(script, vars)
		})
	}
}

func (d *desk) play(script string, vars map[string]string) {
	d.t.Helper()
	text, err := os.ReadFile(script)
	d.must(err)
	c := d.dial()
	var last string
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		verb, rest, _ := strings.Cut(os.Expand(line, func(name string) string { return vars[name] }), " ")
		switch {
		case strings.HasPrefix(verb, "#"):
		case verb == "->":
			fmt.Fprint(c, rest, "\r\n")
		case verb == "<-" && i == 1: // dial has read the greeting
		case verb == "<-":
			if last = c.line(); !strings.HasPrefix(last, rest) {
				d.t.Fatalf("%s:%d: the server said %q, want %q", script, i+1, last, rest)
			}
		case verb == "<=":
			for last = c.line(); !strings.HasPrefix(last, rest); last = c.line() {
				if last == "." {
					d.t.Fatalf("%s:%d: there is no line %q", script, i+1, rest)
				}
			}
		case verb == "<x":
			c.closed()
		default:
			d.t.Fatalf("%s:%d is not a line of a dialogue", script, i+1)
		}
	}
}
