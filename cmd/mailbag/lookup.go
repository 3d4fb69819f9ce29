package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/settings"
	"mailbag/meter"
)

const (
	lookupTimeout = 2 * time.Second        // of one question
	lookupAgain   = 100 * time.Millisecond // until the next, while the answer is the old one
	maxAnswer     = 100_000                // octets; socketmap_table(5) has this limit
)

// awaitDaemon waits until mailbag-policyd tells Postfix the account's present way of delivery, and
// reports whether it does.
func (d *desk) awaitDaemon(ctx context.Context, a *meter.Account) bool {
	if len(a.Domains) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, inForceWithin)
	defer cancel()
	again := time.NewTicker(lookupAgain)
	defer again.Stop()
	for {
		way, err := askTransport(ctx, d.settings.Policy.Lookup, "probe@"+a.Domains[0])
		if err != nil {
			return false
		}
		if name, _, _ := strings.Cut(way, ":"); name == transport(a) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-again.C:
		}
	}
}

// transport is the name in master.cf of the account's way of delivery.
func transport(a *meter.Account) string {
	switch {
	case a.Held():
		return "mailbag-turn"
	case a.Mode == meter.POP3:
		return "mailbag-pop"
	}
	return "relay"
}

// askTransport asks what Postfix would be told (socketmap_table(5)) of the way to an address.
func askTransport(ctx context.Context, at settings.Address, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, at.Network, at.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	question := "transport " + address
	if _, err := fmt.Fprintf(conn, "%d:%s,", len(question), question); err != nil {
		return "", err
	}
	answer, err := readNetstring(bufio.NewReader(conn))
	if err != nil {
		return "", err
	}
	way, found := strings.CutPrefix(answer, "OK ")
	if !found {
		return "", nil // an answer, but no way
	}
	return way, nil
}

// readNetstring reads length:text, and returns the text.
func readNetstring(r *bufio.Reader) (string, error) {
	var digits []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ':' {
			break
		}
		if digits = append(digits, c); len(digits) > len(strconv.Itoa(maxAnswer)) {
			return "", errors.New("the answer is no netstring")
		}
	}
	n, err := strconv.ParseUint(string(digits), 10, 32)
	if err != nil || n > maxAnswer {
		return "", errors.New("the answer is no netstring")
	}
	text := make([]byte, n+1)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", err
	}
	if text[n] != ',' {
		return "", errors.New("the answer is no netstring")
	}
	return string(text[:n]), nil
}
