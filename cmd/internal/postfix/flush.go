package postfix

import (
	"slices"
	"strings"
)

// Postfix keeps, for the domains in fast_flush_domains, a log of their deferred mail, and an ETRN moves what is in it into
// the active queue at once: for held mail, all of it, past the turn. Yet smtpd answers 459 to an ETRN for a domain that is
// not in the list. The list is the same line for all, so it says who reads it (process_name): those that log have no held
// domains in it, all others have them.

// heldFlush takes held domains out of the list of error(8), which as the service retry defers what qmgr holds.
const heldFlush = "mailbag_held"

// The queue manager logs only where there is no retry service. It must not read our tables: it would start again
// whenever they change, and go through its queue from the front.
const (
	flushOpen  = "${{$process_name} == {qmgr} ? {} : {"
	flushClose = "}}"
)

func heldOut(t tables) string { return "${{$process_name} == {error} ? {!" + t.held() + "}}" }

// flushable has the domains of all accounts in those that ETRN flushes, and takes the held ones out of the logs.
func flushable(t tables) func(base) string {
	return func(b base) string {
		list := b.text
		switch {
		case !b.chosen:
			list = "$relay_domains" // Postfix's default, as long as it relayed for nobody
		case !b.names("relay_domains"):
			list = behind(list, t.routes())
		}
		return flushOpen + before(list, "$"+heldFlush) + flushClose
	}
}

// operatorsFlush is a list with what flushable put around and in front of it taken away.
func operatorsFlush(list string) string {
	for _, w := range slices.Backward(words(list)) {
		if inner, ok := strings.CutPrefix(w.text, flushOpen); ok && strings.HasSuffix(inner, flushClose) {
			list = list[:w.start] + strings.TrimSuffix(inner, flushClose) + list[w.end:]
		}
	}
	return cut(list, "$"+heldFlush)
}
