// Package peer is what stands at the customer's end of a line: the line itself ([Proxy], slow, narrow or
// cut off), who fetches ([Fetchmail], [Caller]), and the customer's mail server: [Exim], [OpenSMTPD], [Postfix] and
// [Aiosmtpd] with the limits that they have by themselves, and [Gateway] for what they do not do on command. One that
// records and does nothing else is in package postfixtest.
//
// All of it listens on 127.0.0.1 only, keeps its files in a directory that the caller names, and is
// stopped by who started it; the kernel ends the programs at the latest with the process that
// started them.
package peer
