package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/smtp"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"mailbag/cmd/internal/settings"
)

// examineTLS looks at the certificate as customers get it. In its files it may be another, or one that the daemons
// cannot read.
func examineTLS(ctx context.Context, s *settings.Settings, hostname string, now time.Time) []diagnosis {
	found := []diagnosis{examineCertificate(s.TLS, hostname, now)}
	pair, err := tls.LoadX509KeyPair(s.TLS.Certificate, s.TLS.Key)
	if err != nil {
		return found // of this enough was said
	}
	if problem := unreadable(s.TLS.Key, daemonUser); problem != "" {
		found = append(found, diagnosis{Part: "certificate", Result: illness, Text: problem, Remedy: fmt.Sprintf("run: chgrp %s %s && chmod 640 %[2]s", daemonUser, s.TLS.Key)})
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for _, front := range []struct {
		program  string
		at       []settings.Address
		startTLS bool
	}{
		{"mailbag-turnd", s.Turn.Listen, true}, {"mailbag-turnd", s.Turn.ListenTLS, false}, {"mailbag-popd", s.POP.ListenTLS, false},
	} {
		if len(front.at) == 0 {
			continue
		}
		remedy := fmt.Sprintf("see: journalctl -u %s; new files are read at once, other settings with: systemctl restart %[1]s", front.program)
		switch leaf, err := presented(ctx, front.at[0], s.Proxies, front.startTLS); {
		case errors.Is(err, errNobody), errors.Is(err, os.ErrDeadlineExceeded): // of this enough is said where the daemons are asked
		case err != nil:
			found = append(found, diagnosis{Part: "certificate", Result: illness, Text: fmt.Sprintf("%s offers no TLS at %s: %v", front.program, front.at[0], err), Remedy: remedy})
		case !leaf.Equal(pair.Leaf):
			found = append(found, diagnosis{Part: "certificate", Result: doubt, Text: fmt.Sprintf("%s shows another certificate at %s than that in %s: one for %s until %s",
				front.program, front.at[0], s.TLS.Certificate, leaf.DNSNames, leaf.NotAfter.Format(time.DateOnly)), Remedy: remedy})
		}
	}
	return found
}

// renewal is how long before its end a certificate should have been replaced.
const renewal = 14 * 24 * time.Hour

func examineCertificate(files settings.TLS, hostname string, now time.Time) diagnosis {
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return diagnosis{Part: "certificate", Result: illness, Text: "TLS is not offered: " + err.Error(), Remedy: "put a certificate chain and its key there; README.md shows how certbot does it"}
	}
	leaf, left := pair.Leaf, pair.Leaf.NotAfter.Sub(now)
	switch {
	case left <= 0:
		return diagnosis{Part: "certificate", Result: illness, Text: fmt.Sprintf("%s ended on %s", files.Certificate, leaf.NotAfter.Format(time.DateOnly)), Remedy: "renew it; the daemons see new files by themselves"}
	case bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		return diagnosis{Part: "certificate", Result: doubt, Text: files.Certificate + " signs itself, so that customers cannot verify it", Remedy: "replace it; README.md shows how certbot does it"}
	case left < renewal:
		return diagnosis{Part: "certificate", Result: doubt, Text: fmt.Sprintf("%s ends on %s", files.Certificate, leaf.NotAfter.Format(time.DateOnly)), Remedy: "renew it; the daemons see new files by themselves"}
	}
	if err := leaf.VerifyHostname(hostname); err != nil {
		return diagnosis{Part: "certificate", Result: doubt, Text: fmt.Sprintf("%s does not fit the name by which the daemons greet: %v", files.Certificate, err), Remedy: "get one for " + hostname + ", or set hostname in the settings"}
	}
	return diagnosis{Part: "certificate", Result: well, Text: fmt.Sprintf("for %s until %s", hostname, leaf.NotAfter.Format(time.DateOnly))}
}

// daemonUser is as whom the package runs the daemons.
const daemonUser = "mailbag"

// unreadable says why a user cannot read a file, such as the key, which is not for everybody; empty if he can.
func unreadable(path, name string) string {
	u, err := user.Lookup(name)
	if err != nil {
		return "" // the daemons run as somebody else
	}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Sprintf("the groups of the user %s cannot be seen: %v", name, err)
	}
	// A path that leads through symbolic links, as certbot's do, leads through other directories too.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err.Error()
	}
	need := os.FileMode(4) // to read the file, and to search the directories
	for at := real; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return err.Error()
		}
		sys, granted := info.Sys().(*syscall.Stat_t), info.Mode().Perm()
		switch {
		case strconv.Itoa(int(sys.Uid)) == u.Uid:
			granted >>= 6
		case slices.Contains(groups, strconv.Itoa(int(sys.Gid))):
			granted >>= 3
		}
		if granted&need == 0 && u.Uid != "0" {
			return fmt.Sprintf("the daemons' user %s cannot read %s: %s has the mode %04o, uid %d and gid %d", name, path, at, info.Mode().Perm(), sys.Uid, sys.Gid)
		}
		if at == filepath.Dir(at) {
			return ""
		}
		need = 1
	}
}

// presented returns the certificate that is shown at an address, by STARTTLS (RFC 3207) or from the beginning.
func presented(ctx context.Context, at settings.Address, proxies []netip.Addr, startTLS bool) (*x509.Certificate, error) {
	conn, err := call(ctx, at, proxies)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Whether customers can trust it is looked at in its file.
	config := &tls.Config{InsecureSkipVerify: true}
	var state tls.ConnectionState
	if startTLS {
		client, err := smtp.NewClient(conn, "")
		if err != nil {
			return nil, err
		}
		if err := client.StartTLS(config); err != nil {
			return nil, err
		}
		state, _ = client.TLSConnectionState()
		// A daemon that could not say good-bye would log it.
		if err := client.Quit(); err != nil {
			return nil, err
		}
	} else {
		encrypted := tls.Client(conn, config)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		state = encrypted.ConnectionState()
		if _, err := io.WriteString(encrypted, "QUIT\r\n"); err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, encrypted); err != nil {
			return nil, err
		}
	}
	return state.PeerCertificates[0], nil
}
