package e2e

import (
	"os/exec"
	"testing"

	mtatest "mailbag/testdata/mta"
	postfixtest "mailbag/testdata/postfix"
	"mailbag/testdata/service"
)

// TestWhatDoesNotFitOnTheDiskIsNotCounted fills the MTA's queue, on a small file system of its own.
func TestWhatDoesNotFitOnTheDiskIsNotCounted(t *testing.T) {
	if err := mtatest.Available(besides()); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	dir := postfixtest.ServerDir(t, "full")
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	// It would refuse large messages at MAIL, and not come to write them.
	in, err := mtatest.New(besides(), dir, mtatest.Config{Postfix: map[string]string{"message_size_limit": "0"}, Exim: "check_spool_space = 0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &story{t: t, mta: in}
	elsewhere := postfixtest.ServerDir(t, "mailbag")
	s.Service, err = service.New(binaries, elsewhere, in)
	s.must(err)
	s.bill(atNoon())
	s.must(s.Start())
	t.Cleanup(s.end)
	s.must(s.Wire())
	s.must(in.Start())
	s.etrn("acme", "acme.example")
	accepted, refused := int64(0), 0
	for _, lines := range []int{20_000, 20_000, 20_000, 90_000, 150_000, 200_000, 200_000, 10} {
		data, _ := letter("large", lines)
		if s.send("x@elsewhere.example", data, "a@acme.example").Accepted() {
			accepted++
		} else {
			refused++
		}
	}
	if refused == 0 || accepted == 0 {
		t.Errorf("%d messages were accepted and %d refused; the test shows nothing", accepted, refused)
	}
	if got := s.usage("acme").Messages; got != accepted {
		t.Errorf("%d messages were accepted and %d counted", accepted, got)
	}
}
