// Package exim is mailbag's hand on an existing Exim, as package postfix is on a Postfix. It is an mta.System.
package exim

// An Instance is the Exim of this machine. The zero value is Debian's, and does what needs privileges itself as root, and
// through the helper (mailbag-eximd) as any other user.
type Instance struct {
	Socket string // of the helper; empty: /run/mailbag/exim.sock
}
