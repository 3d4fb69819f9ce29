-- The hosts of one service, which share the ledger. One that is alone is the first.
CREATE TABLE host (
    id       INTEGER PRIMARY KEY,
    name     TEXT    NOT NULL UNIQUE,
    address  TEXT    NOT NULL DEFAULT '', -- where the others reach it
    seen     INTEGER NOT NULL DEFAULT 0,
    settings TEXT    NOT NULL DEFAULT '', -- a digest of those that have to agree
    version  TEXT    NOT NULL DEFAULT ''
) STRICT;

INSERT INTO host (id, name) VALUES (1, '');

-- The batches that were written lately, so that one whose answer was lost is not written twice. Tokens are in the order
-- of time.
CREATE TABLE applied (token TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;

-- What one host at a time does for all of them.
CREATE TABLE job (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder INTEGER NOT NULL REFERENCES host,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The host that has the account's Maildirs.
ALTER TABLE account ADD COLUMN home INTEGER NOT NULL DEFAULT 1;

-- The host that accepted a message. Its instance is no other host's either.
ALTER TABLE message ADD COLUMN host INTEGER NOT NULL DEFAULT 1;

-- What waits in the queue of a host.
ALTER TABLE waiting RENAME TO waiting_12;

CREATE TABLE waiting (
    host      INTEGER NOT NULL DEFAULT 1 REFERENCES host,
    queue_id  TEXT    NOT NULL,
    account   INTEGER NOT NULL REFERENCES account,
    domain    TEXT    NOT NULL, -- not that of table domain: it may have been taken from the account meanwhile
    size      INTEGER NOT NULL,
    since     INTEGER NOT NULL, -- arrival
    noted     INTEGER NOT NULL, -- when this row was written
    missed    INTEGER NOT NULL DEFAULT 0, -- passes over the queue, one after another, that did not find it
    -- 0: none; 1: it was under way with others when a connection to the customer's server broke; from 2 on: it was
    -- alone when one did, so many times less one.
    suspicion INTEGER NOT NULL DEFAULT 0,
    -- When the account took it there. The row stays until a pass over the queue that began later finds it gone:
    -- one that lists the queue at this moment may have seen it, and must not note it anew.
    delivered INTEGER,
    PRIMARY KEY (host, queue_id, account, domain)
) STRICT, WITHOUT ROWID;

INSERT INTO waiting (queue_id, account, domain, size, since, noted, missed, suspicion, delivered)
SELECT queue_id, account, domain, size, since, noted, missed, suspicion, delivered FROM waiting_12 ORDER BY 1, 2, 3;

DROP TABLE waiting_12;

CREATE INDEX waiting_order ON waiting (account, suspicion, since, host, queue_id, domain, size, delivered) WHERE delivered IS NULL;
CREATE INDEX waiting_domain ON waiting (account, domain, suspicion, since, host, queue_id, size, delivered) WHERE delivered IS NULL;

-- What the queue of a host had, at the last pass over it, for accounts whose mail waits for no turn.
ALTER TABLE queued RENAME TO queued_12;

CREATE TABLE queued (
    account  INTEGER NOT NULL REFERENCES account,
    host     INTEGER NOT NULL DEFAULT 1 REFERENCES host,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    oldest   INTEGER NOT NULL, -- arrival
    PRIMARY KEY (account, host)
) STRICT, WITHOUT ROWID;

INSERT INTO queued (account, messages, bytes, oldest) SELECT account, messages, bytes, oldest FROM queued_12 ORDER BY account;

DROP TABLE queued_12;

-- The host that runs a turn, and when it last said that the turn goes on. An account has one at a time.
ALTER TABLE turn ADD COLUMN host  INTEGER NOT NULL DEFAULT 1;
ALTER TABLE turn ADD COLUMN alive INTEGER NOT NULL DEFAULT 0;

UPDATE turn SET ended = began, outcome = 'interrupted'
WHERE ended IS NULL AND EXISTS (SELECT 1 FROM turn other WHERE other.account = turn.account AND other.ended IS NULL AND (other.began, other.token) > (turn.began, turn.token));

DROP INDEX turn_open;
CREATE UNIQUE INDEX turn_open ON turn (account) WHERE ended IS NULL;

-- The evidence of days that are over, which is in files, one for each day and host. What came late, or may be asked about
-- still, is in message.
CREATE TABLE archive (
    day      TEXT    NOT NULL,
    host     INTEGER NOT NULL REFERENCES host,
    messages INTEGER NOT NULL, -- rows: one for each account of each message
    octets   INTEGER NOT NULL, -- of the file
    sha256   BLOB    NOT NULL CHECK (length(sha256) = 32),
    at       INTEGER NOT NULL,
    cleared  INTEGER NOT NULL DEFAULT 0, -- what is in the file has left table message
    PRIMARY KEY (day, host)
) STRICT, WITHOUT ROWID;

-- Recipient lists, one for each domain that has listed addresses. One that an import makes is of no account until it is whole,
-- and one that is in force no more is of no domain either: what is in it goes in its own time.
CREATE TABLE recipient_list (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER,
    domain  TEXT,
    import  TEXT,                       -- what makes it; NULL: nothing does any more
    at      INTEGER NOT NULL,           -- its beginning
    size    INTEGER NOT NULL DEFAULT 0, -- addresses
    UNIQUE (account, domain),
    FOREIGN KEY (account, domain) REFERENCES domain (account, name) ON DELETE SET NULL
) STRICT;

CREATE INDEX recipient_list_domain ON recipient_list (domain);
CREATE INDEX recipient_list_import ON recipient_list (import) WHERE import IS NOT NULL;

INSERT INTO recipient_list (account, domain, at)
SELECT account, domain, 0 FROM recipient GROUP BY account, domain ORDER BY account, domain;

DROP VIEW account_document;
ALTER TABLE recipient RENAME TO recipient_12;

CREATE TABLE recipient (
    list    INTEGER NOT NULL REFERENCES recipient_list,
    address TEXT    NOT NULL,
    PRIMARY KEY (list, address)
) STRICT, WITHOUT ROWID;

INSERT INTO recipient (list, address)
SELECT l.id, r.address FROM recipient_list l CROSS JOIN recipient_12 r ON r.account = l.account AND r.domain = l.domain ORDER BY l.id, r.address;

UPDATE recipient_list SET size = (SELECT count(*) FROM recipient WHERE list = id);

DROP TABLE recipient_12;
DROP TABLE recipient_import;

CREATE TRIGGER recipient_comes AFTER INSERT ON recipient BEGIN
    UPDATE recipient_list SET size = size + 1 WHERE id = new.list;
END;

CREATE TRIGGER recipient_goes AFTER DELETE ON recipient BEGIN
    UPDATE recipient_list SET size = size - 1 WHERE id = old.list;
END;

-- An account as its history shows it: everything but verifiers and the recipient list's lines.
CREATE VIEW account_document AS
SELECT id, name, json_object(
    'name', name,
    'customer', customer,
    'note', note,
    'plan', coalesce(plan, ''),
    'mode', mode,
    'suspended', json(iif(suspended, 'true', 'false')),
    'domains', json((SELECT json_group_array(name) FROM (SELECT name FROM domain WHERE account = account.id ORDER BY name))),
    'host', host,
    'tls', tls,
    'networks', json((SELECT json_group_array(prefix) FROM (SELECT prefix FROM network WHERE account = account.id ORDER BY prefix))),
    'recipients', recipients,
    'recipient_count', (SELECT coalesce(sum(size), 0) FROM recipient_list WHERE account = account.id),
    'mailboxes', json((SELECT json_group_array(address) FROM (SELECT address FROM mailbox WHERE account = account.id ORDER BY address))),
    'messages', messages,
    'bytes', bytes,
    'on_limit', on_limit,
    'max_tiers', max_tiers,
    'base_price', base_price,
    'tier_price', tier_price,
    'waiting_messages', waiting_messages,
    'waiting_bytes', waiting_bytes,
    'hold', hold,
    'contact', contact,
    'copies', copies,
    'catch_all', json(iif(catch_all, 'true', 'false')),
    'quota', quota,
    'cram_md5', json(iif(cram_md5, 'true', 'false')),
    'deleted', json(iif(deleted IS NULL, 'false', 'true'))
) AS document
FROM account;
