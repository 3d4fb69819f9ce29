// Package e2e holds the stories that are told with everything real: a private Postfix or Exim wired by mailbag, the daemons
// and the command line as they are installed, and senders and customers that speak SMTP. It has no code but its tests.
package e2e
