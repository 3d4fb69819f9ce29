-- Where the mail of a mailbox is, once for all: what was said at its making, and belongs to no other mailbox afterwards.
-- Empty: the address.
ALTER TABLE mailbox ADD COLUMN maildir TEXT NOT NULL DEFAULT '';

-- An address has one spelling (Unicode NFC). The mail of a mailbox that had another stays where it is. Of two mailboxes
-- that were one address the composed one stays, and the mail of the other is nobody's.
UPDATE mailbox SET maildir = address WHERE address GLOB '*[^ -~]*' AND address <> one_spelling(address);
UPDATE OR IGNORE mailbox SET address = one_spelling(address) WHERE address GLOB '*[^ -~]*' AND address <> one_spelling(address);
DELETE FROM mailbox WHERE address GLOB '*[^ -~]*' AND address <> one_spelling(address);

UPDATE OR IGNORE credential SET login = one_spelling(login) WHERE login GLOB '*[^ -~]*' AND login <> one_spelling(login);
DELETE FROM credential WHERE login GLOB '*[^ -~]*' AND login <> one_spelling(login);

UPDATE OR IGNORE recipient SET address = one_spelling(address) WHERE address GLOB '*[^ -~]*' AND address <> one_spelling(address);
DELETE FROM recipient WHERE address GLOB '*[^ -~]*' AND address <> one_spelling(address);
