-- A POP3 session that came to a mailbox, written when it has ended.
CREATE TABLE pop_session (
    id       INTEGER PRIMARY KEY,
    account  INTEGER NOT NULL REFERENCES account,
    mailbox  TEXT    NOT NULL, -- address; empty: the catch-all
    client   TEXT    NOT NULL, -- IP address
    tls      TEXT    NOT NULL, -- version; empty: none
    began    INTEGER NOT NULL, -- log-in
    ended    INTEGER NOT NULL,
    fetched  INTEGER NOT NULL, -- messages
    bytes    INTEGER NOT NULL, -- octets sent of them, whole or in part
    deleted  INTEGER NOT NULL, -- messages
    outcome  TEXT    NOT NULL
) STRICT;

CREATE INDEX pop_session_account ON pop_session (account, began);
CREATE INDEX pop_session_began ON pop_session (began);
