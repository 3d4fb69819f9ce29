package main

import "fmt"

// showProgress replaces the line at the end of a terminal; elsewhere it says nothing.
func (c *console) showProgress(format string, args ...any) {
	if c.progress {
		fmt.Fprintf(c.err, "\r\x1b[K"+format, args...)
	}
}

// endProgress takes the line away.
func (c *console) endProgress() {
	if c.progress {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
}
