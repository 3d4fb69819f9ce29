-- Which of its account's domains a waiting message is for, each between spaces. Empty: all of them may be
-- meant, because the account has only one or nobody knows.
ALTER TABLE waiting ADD COLUMN domains TEXT NOT NULL DEFAULT '';

-- When the account took it. The row stays until a pass over the queue that began later finds the message gone:
-- one that lists the queue at this moment may have seen it, and must not note it anew.
ALTER TABLE waiting ADD COLUMN delivered INTEGER;

-- A turn from its beginning on. The token is its program's; ended and outcome are missing while it runs.
CREATE TABLE turn (
    token    TEXT    NOT NULL PRIMARY KEY,
    account  INTEGER NOT NULL REFERENCES account,
    kind     TEXT    NOT NULL CHECK (kind IN ('atrn', 'etrn')),
    client   TEXT    NOT NULL, -- IP address of who asked for it
    peer     TEXT    NOT NULL, -- where the mail went: the client itself, or the account's host
    tls      TEXT    NOT NULL, -- version; empty: none
    began    INTEGER NOT NULL,
    ended    INTEGER,
    messages INTEGER NOT NULL DEFAULT 0,
    bytes    INTEGER NOT NULL DEFAULT 0,
    outcome  TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX turn_account ON turn (account, began);
CREATE INDEX turn_began ON turn (began);
