-- What the TLS of the connection to the account's host has to be, for mail to be delivered there.
ALTER TABLE account ADD COLUMN tls TEXT NOT NULL DEFAULT 'opportunistic' CHECK (tls IN ('opportunistic', 'require', 'verify'));

DROP VIEW account_document;

-- An account as its history shows it: everything but verifiers and the recipient list's lines.
CREATE VIEW account_document AS
SELECT id, name, json_object(
    'name', name,
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
    'hold', hold,
    'contact', contact,
    'copies', copies,
    'catch_all', json(iif(catch_all, 'true', 'false')),
    'quota', quota,
    'cram_md5', json(iif(cram_md5, 'true', 'false')),
    'deleted', json(iif(deleted IS NULL, 'false', 'true'))
) AS document
FROM account;
