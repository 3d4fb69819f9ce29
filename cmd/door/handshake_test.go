package door

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"mailbag/testdata/certificate"
)

func TestHandshakeTakesNoMoreThanAClientHas(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mx.example").Pair}}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		// One ClientHello of 60,000 octets, in records of 1,000.
		record := "\x16\x03\x01\x03\xe8"
		hello := "\x01\x00\xea\x60" + strings.Repeat("\x00", 60_000)
		for len(hello) >= 1000 {
			if _, err := theirs.Write([]byte(record + hello[:1000])); err != nil {
				return
			}
			hello = hello[1000:]
		}
	}()
	defer ours.Close()
	if _, err := Handshake(t.Context(), ours, config); !errors.Is(err, errHello) {
		t.Errorf("the handshake ended with %v, want %v", err, errHello)
	}
}

func TestConnectionIsWithoutBoundAfterTheHandshake(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate.New(t, "mx.example").Pair}}
	ours, theirs := net.Pipe()
	defer ours.Close()
	const octets = 10 * maxHello
	go func() {
		client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
		client.Write(make([]byte, octets))
		theirs.Close()
	}()
	secured, err := Handshake(t.Context(), ours, config)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for buffer := make([]byte, 4096); got < octets; {
		n, err := secured.Read(buffer)
		if got += n; err != nil {
			t.Fatalf("after %d octets: %v", got, err)
		}
	}
}
