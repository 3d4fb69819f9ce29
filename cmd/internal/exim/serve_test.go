package exim

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/tables"
	"mailbag/meter"
	"mailbag/policy/routes"
)

// serve has mailbag-eximd's server on a lab's Exim, for root and those users besides.
func (l *lab) serve(log io.Writer, users ...uint32) (helper, *Server) {
	l.t.Helper()
	socket := filepath.Join(l.dir, "exim.sock")
	listener, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o666)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	server, err := NewServer(l.Instance, slog.New(slog.NewTextHandler(log, nil)), l.dir, users...)
	if err != nil {
		l.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	l.t.Cleanup(func() {
		if err := errors.Join(server.Shutdown(context.Background()), <-served); err != nil {
			l.t.Error(err)
		}
	})
	return helper{socket}, server
}

func TestHelperDoesWhatAnInstanceDoes(t *testing.T) {
	l := newLab(t, true)
	for i := range 3 {
		l.submit(fmt.Sprintf("s%d@held.example", i), "held\n", fmt.Sprintf("u%d@c1.example", i))
	}
	l.submit("t@other.example", "default queue\n", "other@c1.example")
	h, _ := l.serve(io.Discard)
	ctx := context.Background()
	all := l.queue()
	var listed []mta.Entry
	for e, err := range h.Queue(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, e)
	}
	slices.SortFunc(listed, func(a, b mta.Entry) int { return strings.Compare(a.Sender, b.Sender) })
	if got, want := fmt.Sprintf("%+v", listed), fmt.Sprintf("%+v", all); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if missing, err := h.ids(ctx, "missing", []string{all[0].ID, "1aaaaa-000000-00"}); err != nil || !slices.Equal(missing, []string{"1aaaaa-000000-00"}) {
		t.Errorf("missing: %q, %v", missing, err)
	}
	if unfinished, err := h.ids(ctx, "unfinished", nil); err != nil || len(unfinished) != 0 {
		t.Errorf("unfinished: %q, %v", unfinished, err)
	}
	got, err := h.Identity(ctx)
	want, _ := l.Identity(ctx)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
	if err := h.do(ctx, "try", nil); err != nil {
		t.Error(err)
	}
	if err := h.do(ctx, "hold", []string{all[3].ID}); err != nil || !l.queue()[3].Held {
		t.Errorf("hold: %v, %+v", err, l.queue()[3])
	}
	if left, err := h.ids(ctx, "unhold", []string{all[3].ID}); err != nil || len(left) != 0 || l.queue()[3].Held {
		t.Errorf("unhold: %q, %v, %+v", left, err, l.queue()[3])
	}
	if err := h.do(ctx, "return", []string{all[0].ID}); err != nil {
		t.Error(err)
	}
	l.wait("the notification", func() bool { return strings.Contains(l.mailbox(), "Envelope-to: s0@held.example") })
	s := l.openTurn(nil)
	if err := h.do(ctx, "release", l.ids()); err != nil {
		t.Error(err)
	}
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
	if got := s.delivered(); !slices.Equal(got, []string{"other@c1.example", "u1@c1.example", "u2@c1.example"}) {
		t.Errorf("delivered: %q", got)
	}
}

func TestHelperRefusesWhatIsNoRequest(t *testing.T) {
	l := newLab(t, true)
	l.submit("x@held.example", "held\n", "u@c1.example")
	var log strings.Builder
	h, _ := l.serve(&log)
	id := l.ids()[0]
	for _, request := range []string{
		"rm\n" + id + "\n\n", "release " + id + "\n\n", "return\n" + id + " -Mrm\n\n", "return\n-Mrm\n\n", "return\n" + id[:15] + "$\n\n", "RETURN\n" + id + "\n\n",
		"return\n" + id, "return\n" + id + "\n", "return\n" + strings.Repeat(id+"\n", maxIDs+1) + "\n", strings.Repeat("x", 4096), "\n\n",
	} {
		conn, err := net.Dial("unix", h.socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(conn, request) // it may be refused before its end
			_ = conn.(*net.UnixConn).CloseWrite()
		}()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if !strings.Contains(line, `"error"`) && !strings.Contains(request, strings.Repeat(id+"\n", 10)) {
			t.Errorf("%.60q is answered %q", request, line)
		}
	}
	if got := l.ids(); !slices.Equal(got, []string{id}) {
		t.Errorf("the queue has %q", got)
	}
}

func TestHelperServesNobodyElse(t *testing.T) {
	l := newLab(t, true)
	l.submit("x@held.example", "held\n", "u@c1.example")
	h, _ := l.serve(io.Discard, 12345)
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uid        int
		verb, want string
	}{
		{12345, "unfinished", `{"end":true}`},
		{12345, "return", "for root alone"},
		{12345, "unhold", `{"end":true}`},
		{12346, "unfinished", "neither root nor"},
	} {
		conn, err := dialAs(c.uid, h.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.verb+"\n\n") // who is refused need not have been read
		got, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(got), c.want) {
			t.Errorf("user %d gets %q for %s, want %q", c.uid, got, c.verb, c.want)
		}
	}
}

// dialAs connects as another user, as whom one thread is, which ends then.
func dialAs(uid int, socket string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		fd, e := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err = e; err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), socket)
		defer f.Close()
		if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err == nil {
			conn, err = net.FileConn(f)
		}
	}()
	<-done
	return conn, err
}

func TestListingThatIsCutOffIsTruncated(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "exim.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _, _ = readRequest(bufio.NewReader(conn))
			fmt.Fprintf(conn, "%s\n", `{"entry":{"ID":"1aaaaa-000000-00"}}`)
			conn.Close()
		}
	}()
	n := 0
	for _, err := range (helper{socket}).Queue(context.Background()) {
		if n++; n == 2 && !errors.Is(err, mta.ErrTruncated) {
			t.Errorf("a listing without its end: %v", err)
		}
	}
	if n != 2 {
		t.Errorf("there are %d elements", n)
	}
	listener.Close()
	for _, err := range (helper{socket}).Queue(context.Background()) {
		if !errors.Is(err, mta.ErrUnreachable) {
			t.Errorf("nobody answers: %v", err)
		}
	}
}

func TestSlowDestinationKeepsNoOtherWaiting(t *testing.T) {
	l := newLab(t, true)
	const messages = sideBySide*fewest + 30
	l.copies(messages)
	l.submit("t@held.example", "for another\n", "anna@mx.example.org")
	h, _ := l.serve(io.Discard)
	s := l.openTurn(make(chan struct{}))
	all := l.ids()
	release := func() {
		for step := range slices.Chunk(all, 50) {
			if err := h.do(context.Background(), "release", step); err != nil {
				t.Fatal(err)
			}
		}
	}
	release()
	l.wait("the other's mailbox", func() bool { return strings.Contains(l.mailbox(), "for another") })
	for range sideBySide {
		<-s.begun
	}
	// Again what waits or is being delivered: nothing is delivered twice.
	release()
	s.mu.Lock()
	atMax := s.atMax
	s.mu.Unlock()
	close(s.hold)
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
	if got := s.delivered(); len(got) != messages || atMax != sideBySide {
		t.Errorf("%d deliveries, %d side by side", len(got), atMax)
	}
}

// tables has the lab's table say whose c1.example and c2.example are.
func (l *lab) tables(accounts ...meter.Account) {
	l.t.Helper()
	ctx := context.Background()
	ledger, err := meter.Open(ctx, filepath.Join(l.t.TempDir(), "ledger.db"), meter.Options{Create: true})
	if err != nil {
		l.t.Fatal(err)
	}
	defer ledger.Close()
	for _, a := range accounts {
		a.Mode, a.Recipients, a.Copies = meter.ATRN, meter.AnyRecipient, meter.PerRecipient
		if err := ledger.AddAccount(ctx, a, nil); err != nil {
			l.t.Fatal(err)
		}
	}
	all, err := ledger.Load(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := tables.Write(l.dir, routes.Exim(all)); err != nil {
		l.t.Fatal(err)
	}
}

// rewrite changes what the -H files of messages say.
func (l *lab) rewrite(old, text string, ids ...string) {
	l.t.Helper()
	for _, id := range ids {
		name := filepath.Join(l.dir, "spool", "mailbag", "input", id[5:6], id+"-H")
		all, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(name, bytes.ReplaceAll(all, []byte(old), []byte(text)), 0o640)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// An account has 20 processes, however many its domains are.
func TestDomainsOfAnAccountShareItsProcesses(t *testing.T) {
	l := newLab(t, true)
	l.tables(meter.Account{Name: "acme", Domains: []string{"c1.example", "c2.example"}})
	const messages = 2 * sideBySide * fewest
	ids := l.copies(messages)
	l.rewrite("u@c1.example", "U@C2.example", ids[:messages/2]...)
	h, server := l.serve(io.Discard)
	s := l.openTurn(make(chan struct{}))
	if err := h.do(context.Background(), "release", ids); err != nil {
		t.Fatal(err)
	}
	server.deliveries.mu.Lock()
	running, lanes := server.deliveries.running, len(server.deliveries.lanes)
	server.deliveries.mu.Unlock()
	if running != sideBySide || lanes != 1 {
		t.Errorf("%d processes deliver, in %d lanes", running, lanes)
	}
	close(s.hold)
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
	if got := s.delivered(); len(got) != messages || s.atMax > sideBySide || !slices.Contains(got, "U@C2.example") {
		t.Errorf("%d deliveries, %d side by side", len(got), s.atMax)
	}
}

// Exim delivers a message to one account after the other. One that is slow keeps messages waiting that the other has in common with
// it, and no more.
func TestSlowAccountKeepsWhatIsTheOthersAloneNotWaiting(t *testing.T) {
	l := newLab(t, true)
	l.tables(meter.Account{Name: "acme", Domains: []string{"c1.example"}}, meter.Account{Name: "bolt", Domains: []string{"c2.example"}})
	ids := l.copies(sideBySide * fewest)
	l.rewrite("\n1\nu@c1.example\n", "\n2\nu@c1.example\nv@c2.example\n", ids...)
	l.submit("z@held.example", "acme's alone\n", "w@c1.example")
	h, _ := l.serve(io.Discard)
	s := l.openTurn(make(chan struct{}))
	goOn := sync.OnceFunc(func() { close(s.hold) })
	defer goOn()
	for _, some := range [][]string{ids, without(l.ids(), ids)} {
		if err := h.do(context.Background(), "release", some); err != nil {
			t.Fatal(err)
		}
	}
	begun := 0
	l.wait("acme's own message beside those that are in common", func() bool {
		select {
		case <-s.begun:
			begun++
		default:
		}
		return begun == sideBySide+1
	})
	goOn()
	l.wait("an empty queue", func() bool { return len(l.ids()) == 0 })
}
