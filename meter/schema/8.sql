-- What waits in the MTA's queue for a turn: a row for each message and each of its account's domains that it is for,
-- or for all of these where that is not known. Of one message and account all rows that wait have the same size,
-- since and suspicion.
ALTER TABLE waiting RENAME TO waiting_7;

CREATE TABLE waiting (
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
    PRIMARY KEY (queue_id, account, domain)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO waiting (queue_id, account, domain, size, since, noted, missed, delivered)
SELECT w.queue_id, w.account, d.value, w.size, w.since, w.noted, w.missed, w.delivered
FROM waiting_7 w, json_each('["' || replace(trim(w.domains), ' ', '","') || '"]') d
WHERE w.domains <> ''
UNION ALL
SELECT w.queue_id, w.account, d.name, w.size, w.since, w.noted, w.missed, w.delivered
FROM waiting_7 w JOIN domain d ON d.account = w.account
WHERE w.domains = '';

DROP TABLE waiting_7;

-- All that is asked of what waits is answered from these two alone, in the order in which it is handed over. They
-- have delivered because SQLite reads it from the table otherwise, although it is NULL in all of their rows.
CREATE INDEX waiting_order ON waiting (account, suspicion, since, queue_id, domain, size, delivered) WHERE delivered IS NULL;
CREATE INDEX waiting_domain ON waiting (account, domain, suspicion, since, queue_id, size, delivered) WHERE delivered IS NULL;

-- The connections over which a turn went, and the messages under which one broke that they had to themselves, as JSON:
-- an array of queue IDs, or null. Of earlier turns it is known only that those which handed mail over had one connection.
ALTER TABLE turn ADD COLUMN connections INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turn ADD COLUMN suspects    TEXT    NOT NULL DEFAULT 'null';

UPDATE turn SET connections = 1 WHERE messages > 0;
