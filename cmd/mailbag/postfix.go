package main

// onPostfix is what the commands that wire mailbag into an MTA say of Postfix.
var onPostfix = wiringTexts{
	name: "Postfix", command: "postfix", configDir: true, standsBy: true,
	without: "answers 451 to all mail",
	group:   "These commands need root. They change main.cf and master.cf with postconf, and keep what is there.",
	setup: `Make Postfix know the accounts' domains, ask mailbag-policyd about mail for them and hold it, show what that
changes, and reload Postfix. Running it again changes nothing, unless the accounts need more (recipients that
are verified, a longer hold, or TLS on their mail's way out), or a newer mailbag does. The ledger and the tables that
Postfix reads are made where they are missing.

Every message is shown to mailbag-policyd, which counts it where it is for an account. So Postfix answers 451 to all
mail while it is wired and mailbag-policyd does not run, until "mailbag postfix step-aside". Therefore nothing is
changed unless mailbag-policyd answers at the sockets at which Postfix will ask it, to the user as whom Postfix runs; it
has some seconds for that, as it may have to be started first.

The check of recipients goes into smtpd_recipient_restrictions as late as all mail comes to it: at the end, or
before the first restriction that ends the list, such as permit_mynetworks. Where it is there already, and in
such a place, it stays; the order of what else is there never changes.`,
	check: `Compare Postfix with what mailbag needs, and name what is missing or works against it. Status 1 says
that there is a fault: mail would be lost, refused, kept or counted in another way than it should be.`,
	remove: `Take the wiring back, and restore what was there before it. Refused while mail of any account waits in
Postfix's queue, because Postfix would not know where to deliver it: have it delivered first, or
return it to the senders. The ledger stays.`,
	stepAside: `Where mailbag-policyd cannot be had for long, let Postfix do without it: it accepts and delivers others'
mail as if mailbag were not there, puts off new mail for the accounts' domains (451) and turns (458), and delivers what
it has for them. The ledger is not needed. Nothing is accepted for the accounts unmetered but what programs on
this host send by sendmail(1).

"mailbag postfix setup" leaves it so, and "mailbag postfix check" names it as a fault.`,
	stepIn: `Wire mailbag-policyd in again as it was before "mailbag postfix step-aside". It has to answer at the sockets
at which Postfix will ask it; else nothing is changed.`,
	standBy: `Watch mailbag-policyd until it has answered for ten seconds. Where it does not within half a minute, do
"mailbag postfix step-aside", and "mailbag postfix step-in" once it has. mailbag-standby.service does
this at the start of the machine and whenever mailbag-policyd has ended.`,
}
