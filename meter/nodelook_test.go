package meter

import (
	"testing"

	rqlitetest "mailbag/testdata/rqlite"
)

func TestNodesAreSeenAsTheyAre(t *testing.T) {
	t.Parallel()
	needsFile(t) // these are nodes of its own
	if err := rqlitetest.Available(); err != nil {
		t.Skip(err)
	}
	nodes, err := rqlitetest.Start(t.Context(), t.TempDir(), 3, rqlitetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nodes.Stop)
	l, err := Open(t.Context(), nodes.Address(0), Options{Create: true, Beside: t.TempDir() + "/mailbag.db"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nodes.All[2].Kill()
	eventually(t, "the other two are well", func() bool {
		found := l.Nodes(t.Context())
		return found[0] == Node{URL: "http://" + nodes.All[0].HTTP} && found[1] == Node{URL: "http://" + nodes.All[1].HTTP} && found[2].Trouble != nil
	})
	nodes.All[1].Kill()
	eventually(t, "the last one has no leader", func() bool { return l.Nodes(t.Context())[0].Trouble != nil })

	lax, err := rqlitetest.Start(t.Context(), t.TempDir(), 1, rqlitetest.Options{Args: []string{"-fk=false"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lax.Stop)
	other, err := Open(t.Context(), lax.Address(0), Options{Create: true, Beside: t.TempDir() + "/mailbag.db"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	eventually(t, "foreign keys are missed", func() bool { return other.Nodes(t.Context())[0].Lax })
}
