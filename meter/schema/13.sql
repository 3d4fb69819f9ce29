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

-- The host that runs a turn, and when it last said that the turn goes on. An account has one at a time.
ALTER TABLE turn ADD COLUMN host  INTEGER NOT NULL DEFAULT 1;
ALTER TABLE turn ADD COLUMN alive INTEGER NOT NULL DEFAULT 0;

UPDATE turn SET ended = began, outcome = 'interrupted'
WHERE ended IS NULL AND EXISTS (SELECT 1 FROM turn other WHERE other.account = turn.account AND other.ended IS NULL AND (other.began, other.token) > (turn.began, turn.token));

DROP INDEX turn_open;
CREATE UNIQUE INDEX turn_open ON turn (account) WHERE ended IS NULL;

-- The evidence of days that are over for long, which is in files, one for each day and host.
CREATE TABLE archive (
    day      TEXT    NOT NULL,
    host     INTEGER NOT NULL REFERENCES host,
    messages INTEGER NOT NULL, -- rows: one for each account of each message
    octets   INTEGER NOT NULL, -- of the file
    sha256   BLOB    NOT NULL CHECK (length(sha256) = 32),
    at       INTEGER NOT NULL,
    PRIMARY KEY (day, host)
) STRICT, WITHOUT ROWID;
