package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestFirstSignalStopsGracefully(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	want := errors.New("drained")
	err := Life{Log: quiet()}.run(func(graceful, immediate context.Context, ready func()) error {
		ready()
		signals <- syscall.SIGTERM
		<-graceful.Done()
		if immediate.Err() != nil {
			t.Error("a graceful stop is an immediate one")
		}
		return want
	}, signals, nil)
	if err != want {
		t.Errorf("run = %v; want the body's error", err)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	err := Life{Log: quiet(), Drain: time.Hour}.run(func(graceful, immediate context.Context, _ func()) error {
		signals <- syscall.SIGINT
		<-graceful.Done()
		signals <- syscall.SIGINT
		<-immediate.Done()
		return nil
	}, signals, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestDrainingIsBounded(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	err := Life{Log: quiet(), Drain: time.Millisecond}.run(func(_, immediate context.Context, _ func()) error {
		signals <- syscall.SIGTERM
		<-immediate.Done()
		return nil
	}, signals, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestBodyThatEndsByItselfEndsTheDaemon(t *testing.T) {
	t.Parallel()
	want := errors.New("no ledger")
	if err := (Life{Log: quiet()}).run(func(_, _ context.Context, _ func()) error { return want }, nil, nil); err != want {
		t.Errorf("run = %v; want %v", err, want)
	}
}

// notifySocket stands in for systemd; it returns what the daemon says, as it says it.
func notifySocket(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buffer := make([]byte, 4096)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				return
			}
			said <- string(buffer[:n])
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-ended
	})
	return said
}

// Not parallel: it sets the environment.
func TestSystemdIsToldOfStartStateAndEnd(t *testing.T) {
	said := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	signals := make(chan os.Signal, 1)
	expect := func(want string) {
		t.Helper()
		for got := range said {
			if got == want {
				return
			}
			if got != "WATCHDOG=1" {
				t.Fatalf("systemd was told %q; want %q", got, want)
			}
		}
	}
	life := Life{Log: quiet(), Status: func() string { return "12 accounts" }}
	if err := life.run(func(graceful, _ context.Context, ready func()) error {
		ready()
		expect("READY=1")
		expect("STATUS=12 accounts")
		expect("WATCHDOG=1")
		expect("WATCHDOG=1")
		signals <- syscall.SIGTERM
		<-graceful.Done()
		expect("STOPPING=1")
		return nil
	}, signals, nil); err != nil {
		t.Fatal(err)
	}
}

// Not parallel: it sets the environment.
func TestSystemdIsToldOfAReloadAndOfTheStatusAfterIt(t *testing.T) {
	said := notifySocket(t)
	signals, reloads := make(chan os.Signal, 1), make(chan os.Signal, 1)
	status := "old"
	life := Life{Log: quiet(), Status: func() string { return status }, Reload: func() { status = "new" }}
	if err := life.run(func(graceful, _ context.Context, ready func()) error {
		reloads <- syscall.SIGHUP // it waits until the daemon is ready
		ready()
		for _, want := range []string{"READY=1", "STATUS=old", "RELOADING=1", "READY=1", "STATUS=new"} {
			if got := <-said; got != want {
				t.Errorf("systemd was told %q; want %q", got, want)
			}
		}
		signals <- syscall.SIGTERM
		<-graceful.Done()
		return nil
	}, signals, reloads); err != nil {
		t.Fatal(err)
	}
}

// Not parallel: it sets the environment.
func TestWatchdogIsNotServedWhileTheDaemonIsIll(t *testing.T) {
	said := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	asked := make(chan struct{}, 1000)
	life := Life{Log: quiet(), Health: func(context.Context) error {
		asked <- struct{}{}
		return errors.New("no answer")
	}}
	if err := life.run(func(_, _ context.Context, ready func()) error {
		ready()
		for range 5 {
			<-asked
		}
		return nil
	}, nil, nil); err != nil {
		t.Fatal(err)
	}
	for len(said) > 0 {
		if got := <-said; got == "WATCHDOG=1" {
			t.Error("systemd was told that an ill daemon is well")
		}
	}
}

func TestLogHasTheLevelThatWasAskedFor(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLog(&out, "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "account", "acme")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "msg=loud account=acme") || !strings.Contains(got, "time=") {
		t.Errorf("the log is %q", got)
	}
	if _, err := NewLog(&out, "chatty"); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("the error is %v", err)
	}
}

// Not parallel: it sets the environment.
func TestLogToTheJournalHasNoTime(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	status, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sys := status.Sys().(*syscall.Stat_t)
	for stream, timed := range map[string]bool{journalStream(sys): false, "1:1": true, "": true} {
		t.Setenv("JOURNAL_STREAM", stream)
		log, err := NewLog(file, "info")
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		file.Seek(0, io.SeekStart)
		log.Info("started")
		text, err := os.ReadFile(file.Name())
		if err != nil || strings.Contains(string(text), "time=") != timed {
			t.Errorf("JOURNAL_STREAM=%q: the line is %q, %v; want a time stamp: %t", stream, text, err, timed)
		}
	}
}

func TestMetricsShowTheBuild(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := ServeMetrics([]net.Listener{l}, NewRegistry("mailbag-policyd", settings.Default), quiet())
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(body)
	}
	status, body := get("/metrics")
	if status != http.StatusOK || !strings.Contains(body, `mailbag_build_info{goversion="go`) || !strings.Contains(body, `program="mailbag-policyd"`) || !strings.Contains(body, "go_goroutines") {
		t.Errorf("/metrics is %d %s", status, body)
	}
	if status, _ := get("/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("another page is %d; want 404", status)
	}
	m.Close(t.Context())
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) { // somebody else may have the port by now
		t.Errorf("the port is still open: %v", err)
	}
}

func TestClockThatIsSetIsLogged(t *testing.T) {
	t.Parallel()
	for step, want := range map[time.Duration]string{
		-time.Hour: "set back", -900 * time.Millisecond: "", 900 * time.Millisecond: "", 48 * time.Hour: "set forward",
	} {
		var log bytes.Buffer
		Life{Log: slog.New(slog.NewTextHandler(&log, nil))}.watchClock(step)
		if got := log.String(); (got != "") != (want != "") || !strings.Contains(got, want) {
			t.Errorf("after a step of %s the log has %q", step, got)
		}
	}
}
