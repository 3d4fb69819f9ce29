// Package meter is the ledger of a mail bagging service: who the accounts are, what is theirs, what
// they used and what waits for them. It holds all the SQL there is in mailbag.
//
// # What it promises
//
// A message is counted exactly once for each account among its accepted recipients, however often
// and by however many processes its acceptance is reported, and what [Recorder.Record] answered is
// on the disk: a crash of the process or of the machine does not take it back. A day's usage is
// the sum of its evidence rows at the time they were written; nothing else adds to it. A month is the sum
// of its days and of what an operator adjusted, each adjustment with its reason. What [Ledger.CloseMonth]
// closed stays as it was, whatever becomes of prices, limits and accounts.
//
// Every write is one atomic batch of parameterised statements. No transaction is open between a
// read and a write, so what several processes write at once is never lost or half done; where two
// of them want the same thing (a name, a domain), a constraint of the schema decides and the second
// gets an error that says so.
//
// Nothing holds up the recording of mail for long, however much the ledger has: statements find their rows by an index,
// what prunes does so in small batches, and what lists reads a page at a time, so that no read is open while its caller
// has a row. The tests ask SQLite how it executes each statement. What remains is what comes into force at one moment: a
// month's bills take a commit of a tenth of a second for 10,000 accounts, a list of half a million recipients one of seconds.
//
// A [Directory] is an immutable snapshot: daemons read it without locks and without SQL. A
// [Follower] replaces it within a second of a change by any process.
//
// # What it does not do
//
// It starts nothing at import, reads no settings and no environment, and knows of no MTA:
// what is in a mail queue is handed to [Ledger.Reconcile] by the caller.
//
// # Security
//
// Passwords are kept as SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677) and, where asked for, as
// CRAM-MD5's intermediate state (RFC 2195), never in the clear, and are compared in constant time.
// Evidence names neither sender nor recipient. No value reaches SQL but as a parameter.
package meter
