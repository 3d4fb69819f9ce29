-- Terms under a name, of many accounts. As with an account, 0 or NULL is where the settings file's apply.
CREATE TABLE plan (
    name             TEXT    NOT NULL PRIMARY KEY,
    messages         INTEGER NOT NULL DEFAULT 0 CHECK (messages >= 0),
    bytes            INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    on_limit         TEXT    NOT NULL DEFAULT '' CHECK (on_limit IN ('', 'bill', 'defer', 'reject')),
    max_tiers        INTEGER NOT NULL DEFAULT 0 CHECK (max_tiers >= 0),
    base_price       INTEGER CHECK (base_price >= 0),
    tier_price       INTEGER CHECK (tier_price >= 0),
    waiting_messages INTEGER NOT NULL DEFAULT 0 CHECK (waiting_messages >= 0),
    waiting_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (waiting_bytes >= 0)
) STRICT, WITHOUT ROWID;

-- What the operator's own books call the customer, and what else is to be known.
ALTER TABLE account ADD COLUMN customer TEXT NOT NULL DEFAULT '';
ALTER TABLE account ADD COLUMN note     TEXT NOT NULL DEFAULT '';

-- The terms of its plan are an account's where it has none of its own.
ALTER TABLE account ADD COLUMN plan TEXT REFERENCES plan;
CREATE INDEX account_plan ON account (plan) WHERE plan IS NOT NULL;

-- How much may wait in the MTA's queue; 0: no bound.
ALTER TABLE account ADD COLUMN waiting_messages INTEGER NOT NULL DEFAULT 0 CHECK (waiting_messages >= 0);
ALTER TABLE account ADD COLUMN waiting_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (waiting_bytes >= 0);

-- What the accounts need of the MTA is read from this alone.
CREATE INDEX account_demand ON account (mode, hold, recipients, tls, deleted) WHERE deleted IS NULL;

-- What the MTA's queue had, at the last pass over it, for accounts whose mail waits for no turn.
CREATE TABLE queued (
    account  INTEGER NOT NULL PRIMARY KEY REFERENCES account,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    oldest   INTEGER NOT NULL -- arrival
) STRICT;

-- When an account's customer was last there: fetched is the end of the last turn or POP3 session that brought mail,
-- called that of the last one that ended well, with mail or because there was none, or when the account came into
-- service or into its mode, before which nobody could. 0: never. Turns and sessions are not kept for ever.
CREATE TABLE presence (
    account INTEGER NOT NULL PRIMARY KEY REFERENCES account,
    fetched INTEGER NOT NULL,
    called  INTEGER NOT NULL
) STRICT;

-- Who asked for a turn while nothing waited left no trace so far. So nobody is taken to have been away before the
-- oldest that waits now came.
INSERT INTO presence (account, fetched, called)
SELECT id, fetched, called
FROM (
    SELECT id, max(
        coalesce((SELECT ended FROM turn WHERE account = a.id AND ended IS NOT NULL AND messages > 0 ORDER BY began DESC LIMIT 1), 0),
        coalesce((SELECT ended FROM pop_session WHERE account = a.id AND fetched > 0 ORDER BY began DESC LIMIT 1), 0)) AS fetched,
    max(
        coalesce((SELECT ended FROM turn WHERE account = a.id AND ended IS NOT NULL AND outcome = 'done' ORDER BY began DESC LIMIT 1), 0),
        coalesce((SELECT ended FROM pop_session WHERE account = a.id AND outcome = 'done' ORDER BY began DESC LIMIT 1), 0),
        iif(mode IN ('etrn', 'atrn') AND deleted IS NULL,
            coalesce((SELECT min(since) FROM waiting WHERE account = a.id AND delivered IS NULL), unixepoch() * 1000), 0)) AS called
    FROM account a)
WHERE fetched > 0 OR called > 0;

-- Which of its account's domains a message was for, as a JSON array; empty in what was counted before this was kept.
ALTER TABLE message ADD COLUMN domains TEXT NOT NULL DEFAULT '[]';

-- What was counted for each domain in a month: a message for two domains of an account is in both, and once in the
-- account's usage.
CREATE TABLE domain_usage (
    month    TEXT    NOT NULL,
    account  INTEGER NOT NULL REFERENCES account,
    domain   TEXT    NOT NULL, -- not that of table domain: it may have been taken from the account meanwhile
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (month, account, domain)
) STRICT, WITHOUT ROWID;

DROP TRIGGER message_counts;

-- The only way into usage and domain_usage: an evidence row that was not there before.
CREATE TRIGGER message_counts AFTER INSERT ON message BEGIN
    INSERT INTO usage (account, day, messages, bytes, last) VALUES (new.account, new.day, 1, new.size, new.size)
    ON CONFLICT (account, day) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes, last = excluded.last;
    INSERT INTO domain_usage (month, account, domain, messages, bytes)
    SELECT substr(new.day, 1, 7), new.account, value, 1, new.size FROM json_each(new.domains) WHERE true
    ON CONFLICT (month, account, domain) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
END;

-- What an account was called at the closing, and its plan; and of how many days of the month the base price is that
-- is billed, counted from its first day on; 0: of all.
ALTER TABLE invoice ADD COLUMN customer TEXT    NOT NULL DEFAULT '';
ALTER TABLE invoice ADD COLUMN plan     TEXT    NOT NULL DEFAULT '';
ALTER TABLE invoice ADD COLUMN days     INTEGER NOT NULL DEFAULT 0;

-- Every change by an operator, of an account or of a plan. Its newest id is the revision that a Directory carries.
ALTER TABLE change RENAME TO change_11;

CREATE TABLE change (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    account INTEGER REFERENCES account,
    plan    TEXT, -- not that of table plan: it may have been removed
    action  TEXT    NOT NULL,
    before  TEXT,
    after   TEXT,
    CONSTRAINT change_of_one_thing CHECK ((account IS NULL) <> (plan IS NULL))
) STRICT;

INSERT INTO change (id, at, who, account, action, before, after)
SELECT id, at, who, account, action, before, after FROM change_11;

DROP TABLE change_11;

CREATE INDEX change_account ON change (account, id);
CREATE INDEX change_at ON change (at);
CREATE INDEX change_plan ON change (plan, id) WHERE plan IS NOT NULL;

-- A notice may be of several accounts, to the operator.
ALTER TABLE notice RENAME TO notice_11;

CREATE TABLE notice (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    account   INTEGER REFERENCES account, -- NULL: of several, to the operator
    subject   TEXT    NOT NULL, -- what it is about: a month with its limits, the mail that waits, or who does not fetch it
    level     INTEGER NOT NULL, -- how far it has come, such as per cent of the limit
    recipient TEXT    NOT NULL, -- a JSON array of addresses; none: others have been told
    message   TEXT    NOT NULL, -- as the MTA gets it
    made      INTEGER NOT NULL,
    sent      INTEGER,          -- NULL: not known to be with the MTA
    over      INTEGER           -- when its occasion ended, so that the next one is another
) STRICT;

INSERT INTO notice (id, account, subject, level, recipient, message, made, sent, over)
SELECT id, account, subject, level, recipient, message, made, sent, over FROM notice_11;

DROP TABLE notice_11;

CREATE UNIQUE INDEX notice_once ON notice (account, subject, level) WHERE over IS NULL;
CREATE INDEX notice_unsent ON notice (id) WHERE sent IS NULL;
CREATE INDEX notice_made ON notice (made);

DROP VIEW account_document;

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
    'recipient_count', (SELECT count(*) FROM recipient WHERE account = account.id),
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

-- A plan as its history shows it.
CREATE VIEW plan_document AS
SELECT name, json_object(
    'name', name,
    'messages', messages,
    'bytes', bytes,
    'on_limit', on_limit,
    'max_tiers', max_tiers,
    'base_price', base_price,
    'tier_price', tier_price,
    'waiting_messages', waiting_messages,
    'waiting_bytes', waiting_bytes
) AS document
FROM plan;

-- What every account used in a month, with what was adjusted: the month of a hundred thousand accounts in one look. Only
-- these triggers write to it.
CREATE TABLE month_usage (
    month    TEXT    NOT NULL,
    account  INTEGER NOT NULL REFERENCES account,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (month, account)
) STRICT, WITHOUT ROWID;

INSERT INTO month_usage (month, account, messages, bytes)
SELECT month, account, sum(messages), sum(bytes)
FROM (SELECT substr(day, 1, 7) AS month, account, messages, bytes FROM usage
      UNION ALL SELECT month, account, messages, bytes FROM adjustment)
GROUP BY month, account;

CREATE TRIGGER usage_comes AFTER INSERT ON usage BEGIN
    INSERT INTO month_usage (month, account, messages, bytes) VALUES (substr(new.day, 1, 7), new.account, new.messages, new.bytes)
    ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER usage_changes AFTER UPDATE OF messages, bytes ON usage BEGIN
    UPDATE month_usage SET messages = messages + new.messages - old.messages, bytes = bytes + new.bytes - old.bytes
    WHERE month = substr(new.day, 1, 7) AND account = new.account;
END;

CREATE TRIGGER usage_goes AFTER DELETE ON usage BEGIN
    UPDATE month_usage SET messages = messages - old.messages, bytes = bytes - old.bytes
    WHERE month = substr(old.day, 1, 7) AND account = old.account;
END;

CREATE TRIGGER adjustment_comes AFTER INSERT ON adjustment BEGIN
    INSERT INTO month_usage (month, account, messages, bytes) VALUES (new.month, new.account, new.messages, new.bytes)
    ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, bytes = bytes + excluded.bytes;
END;
