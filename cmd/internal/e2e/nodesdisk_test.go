package e2e

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	mtatest "mailbag/testdata/mta"
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
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", disk).CombinedOutput(); err != nil {
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
			_, err = filler.Write(make([]byte, 4<<10))
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

// wantSameCopies fails the test where a node has other evidence than the others.
func (s *story) wantSameCopies() {
	s.t.Helper()
	s.must(s.nodes.Wait(s.t.Context()))
	var first []byte
	for i, node := range s.nodes.All {
		answer, err := http.Get("http://" + node.HTTP + "/db/query?level=none&q=" + url.QueryEscape(
			"SELECT count(*), sum(size), (SELECT sum(messages) FROM usage), (SELECT count(*) FROM waiting) FROM message"))
		s.must(err)
		var text bytes.Buffer
		_, err = text.ReadFrom(answer.Body)
		s.must(err)
		answer.Body.Close()
		if i == 0 {
			first = text.Bytes()
		} else if !bytes.Equal(first, text.Bytes()) {
			s.t.Errorf("node 0 has %s, node %d %s", first, i, &text)
		}
	}
}
