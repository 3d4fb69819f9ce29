// Package peer is what stands at the customer's end of a line: the line itself ([Proxy], slow, narrow or
// cut off), fetchmail ([Fetchmail]), and Exim as the customer's mail server ([Exim]). A Postfix as the
// customer's server, and one that records and does nothing else, are in package postfixtest.
//
// All of it listens on 127.0.0.1 only, keeps its files in a directory that the caller names, and is
// stopped by who started it; the kernel ends the programs at the latest with the process that
// started them.
package peer
