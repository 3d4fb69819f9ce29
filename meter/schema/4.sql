-- Prices are hundredths of the currency, and months YYYY-MM in the billing time zone.

-- An account's own prices; NULL where the settings file's apply, because 0 is a price too.
ALTER TABLE account ADD COLUMN base_price INTEGER CHECK (base_price >= 0);
ALTER TABLE account ADD COLUMN tier_price INTEGER CHECK (tier_price >= 0);

-- What an operator adds to a month's usage, or takes from it.
CREATE TABLE adjustment (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    account  INTEGER NOT NULL REFERENCES account,
    month    TEXT    NOT NULL,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    reason   TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    who      TEXT    NOT NULL
) STRICT;

CREATE INDEX adjustment_account ON adjustment (account, month);

CREATE TABLE closed_month (
    month TEXT    NOT NULL PRIMARY KEY,
    at    INTEGER NOT NULL,
    who   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- The bills of closed months: all that they are computed from, as it was at the closing.
CREATE TABLE invoice (
    month         TEXT    NOT NULL REFERENCES closed_month,
    account       INTEGER NOT NULL REFERENCES account,
    mode          TEXT    NOT NULL,
    domains       TEXT    NOT NULL, -- a JSON array
    deleted       INTEGER NOT NULL,
    messages      INTEGER NOT NULL, -- counted; adjustments come on top
    bytes         INTEGER NOT NULL,
    tier_messages INTEGER NOT NULL,
    tier_bytes    INTEGER NOT NULL,
    base_price    INTEGER NOT NULL,
    tier_price    INTEGER NOT NULL,
    currency      TEXT    NOT NULL,
    PRIMARY KEY (month, account)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER invoice_stays BEFORE UPDATE ON invoice BEGIN
    SELECT RAISE(ABORT, 'a closed invoice does not change');
END;

CREATE TRIGGER invoice_is_kept BEFORE DELETE ON invoice BEGIN
    SELECT RAISE(ABORT, 'a closed invoice does not change');
END;

CREATE TRIGGER closed_month_is_adjusted_no_more BEFORE INSERT ON adjustment
WHEN EXISTS (SELECT 1 FROM closed_month WHERE month = new.month) BEGIN
    SELECT RAISE(ABORT, 'the month is closed');
END;

-- Notices to customers, written here whole before they are handed to the MTA.
CREATE TABLE notice (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    account   INTEGER NOT NULL REFERENCES account,
    subject   TEXT    NOT NULL, -- what it is about: a month with its limits, or the mail that waits
    level     INTEGER NOT NULL, -- per cent of the limit, or of the hold time
    recipient TEXT    NOT NULL, -- a JSON array of addresses
    message   TEXT    NOT NULL, -- as the MTA gets it
    made      INTEGER NOT NULL,
    sent      INTEGER,          -- NULL: not known to be with the MTA
    over      INTEGER           -- when its occasion ended, so that the next one is another
) STRICT;

CREATE UNIQUE INDEX notice_once ON notice (account, subject, level) WHERE over IS NULL;
CREATE INDEX notice_unsent ON notice (id) WHERE sent IS NULL;

DROP VIEW account_document;

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
    'base_price', base_price,
    'tier_price', tier_price,
    'hold', hold,
    'contact', contact,
    'copies', copies,
    'catch_all', json(iif(catch_all, 'true', 'false')),
    'quota', quota,
    'cram_md5', json(iif(cram_md5, 'true', 'false')),
    'deleted', json(iif(deleted IS NULL, 'false', 'true'))
) AS document
FROM account;
