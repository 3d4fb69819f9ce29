// Package maildir keeps messages in Maildirs: directories with tmp, new and cur, one file a message, that any
// number of programs may use at once without locks (maildir(5), https://cr.yp.to/proto/maildir.html).
//
// # What it promises
//
// A message that [Draft.Deliver] took is on the disk, whole, under a name that nobody else makes, and nobody
// saw a part of it before. Messages are stored with LF line ends, as every Maildir tool expects, and known by
// what they are when they are sent: lines end with CRLF. Both sizes are in the name (",S=" as stored, ",W=" as sent), so
// that [Maildir.List] reads directories and no file. Where another program named the files and left W out,
// each file is read once, and what was found is kept in one file beside new and cur, which does not disturb
// others: renaming a message would, because Dovecot knows messages by name.
//
// # What it does not do
//
// It does not move messages from new to cur, and reads no flags: what is in either is a message. It trusts a
// W= in a name. A line that ends with several CRs before its LF loses one of them.
//
// # Security
//
// Files and directories are closed to all but their owner. Symbolic links are not followed when a message is opened.
// Names within a directory are taken as they are and only ever joined to it: what makes a path of an address is the
// caller's, and has to be safe.
package maildir
