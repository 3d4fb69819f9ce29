package main

// onExim is what the commands that wire mailbag into an MTA say of Exim. There is nothing to stand by for: others' mail
// does not depend on mailbag-policyd.
var onExim = wiringTexts{
	name: "Exim", command: "exim",
	without: "answers 451 to mail for the accounts' domains",
	group:   "These commands need root. They change the configuration of Debian's exim4 in /etc/exim4, and keep what is there.",
	setup: `Make Exim know the accounts' domains, ask mailbag-policyd about mail for them and hold it, show what that
changes, and reload Exim. Running it again changes nothing, unless the accounts need more, or a newer mailbag does. The
ledger and the table that Exim reads are made where they are missing.

Exim looks in that table whose a domain is, and asks mailbag-policyd for the accounts' domains alone: while it does not
run, their mail is put off (451) and their turns are (458), and others' mail goes on. Nothing is changed unless
mailbag-policyd answers at the socket at which Exim will ask it, to the user as whom Exim runs; it has some seconds for
that, as it may have to be started first.

The ACLs of the host stay in force, with their own answers; none of them can accept mail for an account uncounted.`,
	check: `Compare Exim with what mailbag needs, and name what is missing or works against it. Status 1 says that there
is a fault: mail would be lost, refused, kept or counted in another way than it should be.`,
	remove: `Take the wiring back, and restore what was there before it. Refused while mail of any account waits in
Exim's queue, because Exim would not know where to deliver it: have it delivered first, or return it to the
senders. The ledger stays.`,
	stepAside: `Where mailbag-policyd cannot be had for long, let Exim do without it: it puts off new mail for the accounts'
domains (451) and turns (458) without asking, and delivers what it has for them. The ledger is not needed. Others' mail
goes on as it does in any case.

"mailbag exim setup" leaves it so, and "mailbag exim check" names it as a fault.`,
	stepIn: `Have Exim ask mailbag-policyd again as before "mailbag exim step-aside". It has to answer at the socket at
which Exim will ask it; else nothing is changed.`,
}
