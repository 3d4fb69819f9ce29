package e2e

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	rqlitetest "mailbag/testdata/rqlite"
)

// TestANodesDiskIsFull fills that of a node that leads, and of one that follows: mail goes on. Nothing tells
// whether the node makes up for all that it did not write, so it is replaced by an empty one.
func TestANodesDiskIsFull(t *testing.T) {
	t.Parallel()
	const full = 1 // the node with the small disk
	dir := t.TempDir()
	disk := rqlitetest.Dir(dir, full)
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256m,mode=700", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s := onNodes(t, startNodes(t, dir), 0, mtatest.Config{})
	s.etrn("acme", "acme.example")
	l := s.load(3, "a@acme.example")
	for _, leads := range []bool{false, true} {
		for leader := s.leader(); (leader == full) != leads; leader = s.leader() {
			node := s.nodes.All[leader]
			node.Kill()
			s.leader()
			s.must(node.Start())
			s.must(s.nodes.Wait(t.Context()))
		}
		filler, err := os.Create(filepath.Join(disk, "filler"))
		s.must(err)
		for err == nil {
			_, err = filler.Write(make([]byte, 64<<10)) // to the last page of it
		}
		s.must(filler.Close())
		l.more(s, 50)
		s.waitFor("another leader", func() bool { leader := s.nodes.Leader(); return leader >= 0 && leader != full })
		l.more(s, 50)
		s.must(s.nodes.Replace(t.Context(), full))
		l.more(s, 10)
	}
	accepted, refusals := l.stop()
	t.Logf("%d messages were accepted; otherwise senders heard %q", accepted, refusals)
	s.wantCounted(200, "acme")
	s.wantSameCopies()
}

// TestANodeIsReplaced has an empty node take the place of each, one after another, and then lose another one: without what the
// new ones have there would be no quorum.
func TestANodeIsReplaced(t *testing.T) {
	t.Parallel()
	s := onNodes(t, startNodes(t, t.TempDir()), 0, mtatest.Config{})
	s.etrn("acme", "acme.example")
	l := s.load(3, "a@acme.example")
	for i := range s.nodes.All {
		l.more(s, 10)
		s.must(s.nodes.Replace(t.Context(), i))
	}
	l.more(s, 10)
	s.nodes.All[s.leader()].Kill()
	l.more(s, 10)
	for _, node := range s.nodes.All {
		s.must(node.Start())
	}
	accepted, refusals := l.stop()
	t.Logf("%d messages were accepted; otherwise senders heard %q", accepted, refusals)
	s.wantCounted(40, "acme")
	s.wantSameCopies()
}

// wantSameCopies fails the test where a node never has the evidence that the others have: one that was behind makes up for it.
func (s *story) wantSameCopies() {
	s.t.Helper()
	s.must(s.nodes.Wait(s.t.Context()))
	copies := make([]string, len(s.nodes.All))
	err := postfixtest.Wait("every node to have the same evidence", func() bool {
		for i, node := range s.nodes.All {
			answer, err := http.Get("http://" + node.HTTP + "/db/query?level=none&q=" + url.QueryEscape(
				"SELECT count(*), sum(size), (SELECT sum(messages) FROM usage), (SELECT count(*) FROM waiting) FROM message"))
			s.must(err)
			text, err := io.ReadAll(answer.Body)
			s.must(errors.Join(err, answer.Body.Close()))
			copies[i] = string(text)
		}
		return len(slices.Compact(slices.Clone(copies))) == 1
	})
	if err != nil {
		s.t.Errorf("%v; they have %q", err, copies)
	}
}
