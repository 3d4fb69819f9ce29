// Package release makes the MTA try held mail now: one message by its queue ID, or everything for one
// domain. [Postfix] speaks to flush(8), [Command] runs a program for each message, such as exim -M.
//
// # Promises
//
// Only the messages that are named are tried; the rest of the queue stays as it is. Every request is
// bounded in time. A message that is gone, or that the MTA has in hand at the moment, is no error, unless a program says
// so by its exit status; nor does it keep the others from being tried.
//
// # What it does not do
//
// It does not wait for a delivery and does not learn of one: the MTA says that it has taken the request,
// and no more. In particular Postfix takes and forgets a request for a message that is in its active
// queue. Whoever needs a message must see it arrive, and else ask again.
//
// # Security
//
// A queue ID is checked before it is sent or becomes an argument, and no shell is involved. What a program
// prints is never part of anything but an error, cut short.
package release

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// ErrNoSite is what Flush returns where the MTA has no way to try the mail of one domain alone.
var ErrNoSite = errors.New("this way of releasing mail knows single messages only")

// perMessage bounds one request. Postfix and Exim answer in milliseconds unless the machine is overloaded.
const perMessage = 20 * time.Second

// queueID covers the IDs of Postfix, short and long, and those of Exim, which have hyphens within.
var queueID = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z-]{0,31}$`)

// checkIDs makes sure that nothing else than queue IDs gets to the MTA.
func checkIDs(ids []string) error {
	for _, id := range ids {
		if !queueID.MatchString(id) {
			return fmt.Errorf("%.40q is not a queue ID", id)
		}
	}
	return nil
}
