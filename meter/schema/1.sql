-- Times are milliseconds since 1970-01-01 UTC, sizes are octets, durations are seconds.
-- Optional limits are 0 where the settings file's default applies.

CREATE TABLE account (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE, -- deleted accounts stay billable, so a name is never used again
    mode       TEXT    NOT NULL CHECK (mode IN ('backup', 'etrn', 'atrn', 'pop3')),
    suspended  INTEGER NOT NULL DEFAULT 0,
    host       TEXT    NOT NULL DEFAULT '',
    recipients TEXT    NOT NULL DEFAULT 'any' CHECK (recipients IN ('any', 'list', 'verify')),
    messages   INTEGER NOT NULL DEFAULT 0 CHECK (messages >= 0),
    bytes      INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    on_limit   TEXT    NOT NULL DEFAULT '' CHECK (on_limit IN ('', 'bill', 'defer', 'reject')),
    max_tiers  INTEGER NOT NULL DEFAULT 0 CHECK (max_tiers >= 0),
    hold       INTEGER NOT NULL DEFAULT 0 CHECK (hold >= 0),
    contact    TEXT    NOT NULL DEFAULT '',
    copies     TEXT    NOT NULL DEFAULT 'per-recipient' CHECK (copies IN ('per-recipient', 'single')),
    catch_all  INTEGER NOT NULL DEFAULT 1,
    quota      INTEGER NOT NULL DEFAULT 0 CHECK (quota >= 0),
    cram_md5   INTEGER NOT NULL DEFAULT 0,
    created    INTEGER NOT NULL,
    deleted    INTEGER
) STRICT;

CREATE TABLE domain (
    name    TEXT    NOT NULL PRIMARY KEY, -- two accounts can never have the same
    account INTEGER NOT NULL REFERENCES account,
    UNIQUE (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE network (
    account INTEGER NOT NULL REFERENCES account,
    prefix  TEXT    NOT NULL,
    PRIMARY KEY (account, prefix)
) STRICT, WITHOUT ROWID;

-- The pair (account, domain) keeps an address inside its own account's domains.
CREATE TABLE mailbox (
    address TEXT    NOT NULL PRIMARY KEY,
    account INTEGER NOT NULL,
    domain  TEXT    NOT NULL,
    created INTEGER NOT NULL,
    FOREIGN KEY (account, domain) REFERENCES domain (account, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX mailbox_domain ON mailbox (account, domain);

CREATE TABLE recipient (
    account INTEGER NOT NULL,
    address TEXT    NOT NULL,
    domain  TEXT    NOT NULL,
    PRIMARY KEY (account, address),
    FOREIGN KEY (account, domain) REFERENCES domain (account, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX recipient_domain ON recipient (account, domain);

-- Where an import gathers its rows before one batch puts them in force.
CREATE TABLE recipient_import (
    token   TEXT    NOT NULL,
    address TEXT    NOT NULL,
    domain  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (token, address)
) STRICT, WITHOUT ROWID;

-- A login is an account's name or a mailbox's address.
CREATE TABLE credential (
    login      TEXT    NOT NULL PRIMARY KEY,
    account    INTEGER NOT NULL REFERENCES account,
    salt       BLOB    NOT NULL,
    iterations INTEGER NOT NULL,
    stored_key BLOB    NOT NULL,
    server_key BLOB    NOT NULL,
    cram_md5   BLOB, -- both HMAC-MD5 states, 16 octets each
    changed    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Evidence: one row for each account of each accepted message.
CREATE TABLE message (
    instance TEXT    NOT NULL,
    account  INTEGER NOT NULL REFERENCES account,
    at       INTEGER NOT NULL,
    day      TEXT    NOT NULL, -- in the billing time zone
    queue_id TEXT    NOT NULL,
    size     INTEGER NOT NULL CHECK (size >= 0),
    client   TEXT    NOT NULL,
    PRIMARY KEY (instance, account)
) STRICT, WITHOUT ROWID;

CREATE INDEX message_at ON message (account, at);

CREATE TABLE usage (
    account  INTEGER NOT NULL REFERENCES account,
    day      TEXT    NOT NULL,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (account, day)
) STRICT, WITHOUT ROWID;

-- The only way into usage: an evidence row that was not there before.
CREATE TRIGGER message_counts AFTER INSERT ON message BEGIN
    INSERT INTO usage (account, day, messages, bytes) VALUES (new.account, new.day, 1, new.size)
    ON CONFLICT (account, day) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;

-- What waits in the MTA's queue for a turn.
CREATE TABLE waiting (
    queue_id TEXT    NOT NULL,
    account  INTEGER NOT NULL REFERENCES account,
    size     INTEGER NOT NULL,
    since    INTEGER NOT NULL, -- arrival
    noted    INTEGER NOT NULL, -- when this row was written
    missed   INTEGER NOT NULL DEFAULT 0, -- passes over the queue, one after another, that did not find it
    PRIMARY KEY (queue_id, account)
) STRICT, WITHOUT ROWID;

CREATE INDEX waiting_account ON waiting (account, since);

-- Every change by an operator. Its newest id is the revision that a Directory carries.
CREATE TABLE change (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    account INTEGER NOT NULL REFERENCES account,
    action  TEXT    NOT NULL,
    before  TEXT,
    after   TEXT
) STRICT;

CREATE INDEX change_account ON change (account, id);

-- An account as its history shows it: everything but verifiers and the recipient list's lines.
CREATE VIEW account_document AS
SELECT id, name, json_object(
    'name', name,
    'mode', mode,
    'suspended', json(iif(suspended, 'true', 'false')),
    'domains', json((SELECT json_group_array(name) FROM (SELECT name FROM domain WHERE account = account.id ORDER BY name))),
    'host', host,
    'networks', json((SELECT json_group_array(prefix) FROM (SELECT prefix FROM network WHERE account = account.id ORDER BY prefix))),
    'recipients', recipients,
    'recipient_count', (SELECT count(*) FROM recipient WHERE account = account.id),
    'mailboxes', json((SELECT json_group_array(address) FROM (SELECT address FROM mailbox WHERE account = account.id ORDER BY address))),
    'messages', messages,
    'bytes', bytes,
    'on_limit', on_limit,
    'max_tiers', max_tiers,
    'hold', hold,
    'contact', contact,
    'copies', copies,
    'catch_all', json(iif(catch_all, 'true', 'false')),
    'quota', quota,
    'cram_md5', json(iif(cram_md5, 'true', 'false')),
    'deleted', json(iif(deleted IS NULL, 'false', 'true'))
) AS document
FROM account;
