-- The turns that are open, which are few among all that were.
CREATE INDEX turn_open ON turn (token) WHERE ended IS NULL;

-- The POP3 sessions that are to be made counts of their day.
CREATE INDEX pop_session_idle ON pop_session (account, mailbox, began)
WHERE sessions = 0 AND fetched = 0 AND deleted = 0 AND bytes = 0;

CREATE INDEX notice_made ON notice (made);
CREATE INDEX credential_account ON credential (account);
