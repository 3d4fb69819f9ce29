-- The octets of the day's last message: where that one crossed the limit beyond which no mail is accepted, what
-- it had above begins no further tier.
ALTER TABLE usage ADD COLUMN last INTEGER NOT NULL DEFAULT 0;

UPDATE usage SET last = m.size
FROM (SELECT account, day, size, max(at) FROM message GROUP BY account, day) AS m
WHERE m.account = usage.account AND m.day = usage.day;

DROP TRIGGER message_counts;

-- The only way into usage: an evidence row that was not there before.
CREATE TRIGGER message_counts AFTER INSERT ON message BEGIN
    INSERT INTO usage (account, day, messages, bytes, last) VALUES (new.account, new.day, 1, new.size, new.size)
    ON CONFLICT (account, day) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes, last = excluded.last;
END;

-- What bounds the tiers of a closed bill. Those that were closed before had no bound.
ALTER TABLE invoice ADD COLUMN on_limit  TEXT    NOT NULL DEFAULT 'bill';
ALTER TABLE invoice ADD COLUMN max_tiers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invoice ADD COLUMN last      INTEGER NOT NULL DEFAULT 0; -- octets of the month's last message
