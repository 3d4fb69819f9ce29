-- Fills an empty ledger with as many accounts as temp.given says, as an ISP has them on its day today (YYYY-MM-DD), at its
-- moment now (milliseconds): every one had mail once a week in the month so far, a fifth of them have mail waiting, and a
-- tenth never fetched any.
INSERT INTO plan (name, messages, bytes, on_limit, base_price, tier_price) VALUES
    ('small', 1000, 100000000, 'defer', 500, 500), ('large', 100000, 10000000000, '', 4000, 2000);

INSERT INTO account (id, name, customer, note, plan, mode, suspended, host, recipients, contact, created)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT accounts FROM temp.given))
SELECT i, printf('customer-%06d', i), printf('K-%d', 10000 + i), iif(i % 100 = 0, 'pays by invoice', ''),
    CASE i % 3 WHEN 0 THEN 'small' WHEN 1 THEN 'large' END,
    CASE i % 4 WHEN 0 THEN 'backup' WHEN 1 THEN 'etrn' WHEN 2 THEN 'atrn' ELSE 'pop3' END, i % 50 = 7,
    CASE WHEN i % 4 < 2 THEN printf('mail.customer-%06d.example', i) ELSE '' END,
    iif(i % 10 = 0, 'list', 'any'), printf('office-%d@elsewhere.example', i), (SELECT now FROM temp.given) - 400 * 86400000
FROM n;

INSERT INTO domain (name, account)
SELECT name || '.example', id FROM account
UNION ALL SELECT 'shop.' || name || '.example', id FROM account WHERE id % 5 = 0;

INSERT INTO network (account, prefix)
SELECT id, printf('10.%d.%d.%d/32', id / 65536, id / 256 % 256, id % 256) FROM account WHERE mode IN ('etrn', 'atrn');

INSERT INTO mailbox (address, account, domain, created)
SELECT local.value || '@' || a.name || '.example', a.id, a.name || '.example', a.created
FROM account a, json_each('["info","office","sales"]') local WHERE a.mode = 'pop3';

INSERT INTO recipient_list (id, account, domain, at)
SELECT id, id, name || '.example', created FROM account WHERE recipients = 'list';

INSERT INTO recipient (list, address)
SELECT a.id, printf('user%d@%s.example', local.value, a.name)
FROM account a, (WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 100) SELECT value FROM n) local
WHERE a.recipients = 'list';

INSERT INTO usage (account, day, messages, bytes, last)
WITH RECURSIVE d (day) AS (SELECT substr((SELECT today FROM temp.given), 1, 8) || '01' UNION ALL SELECT date(day, '+7 day') FROM d WHERE day <= date((SELECT today FROM temp.given), '-7 day'))
SELECT id, day, 1 + id % 97, (1 + id % 97) * 40000, 40000 FROM account, d;

INSERT INTO domain_usage (month, account, domain, messages, bytes)
SELECT u.month, u.account, a.name || '.example', u.messages, u.bytes FROM month_usage u JOIN account a ON a.id = u.account;

INSERT INTO change (at, who, account, action, before, after)
SELECT a.created + what.key * 86400000, 'root', a.id, what.value, iif(what.key = 0, NULL, v.document), v.document
FROM json_each('["account add","account set"]') what, account a JOIN account_document v ON v.id = a.id;

INSERT INTO waiting (queue_id, account, domain, size, since, noted)
SELECT printf('4b%06xz%d', a.id, local.value), a.id, name || '.example', 30000, (SELECT now FROM temp.given) - (a.id % 30) * 86400000 - local.value * 60000, (SELECT now FROM temp.given)
FROM account a, json_each('[1,2,3,4,5,6,7,8,9,10]') local WHERE a.id % 10 IN (1, 2);

INSERT INTO presence (account, fetched, called)
SELECT id, (SELECT now FROM temp.given) - (id % 20) * 86400000, (SELECT now FROM temp.given) - (id % 18) * 86400000 FROM account WHERE mode <> 'backup' AND id % 10 <> 3;

INSERT INTO turn (token, account, kind, client, peer, tls, began, ended, messages, bytes, outcome)
SELECT 'turn-' || id, id, mode, '192.0.2.1', '192.0.2.1:25', 'TLS 1.3', (SELECT now FROM temp.given) - 3600000, (SELECT now FROM temp.given) - 3590000, 3, 120000,
    iif(id % 7 = 0, 'the connection broke', 'done')
FROM account WHERE mode IN ('etrn', 'atrn');

INSERT INTO pop_session (account, mailbox, client, tls, began, ended, fetched, bytes, deleted, outcome)
SELECT id, '', '192.0.2.1', 'TLS 1.3', (SELECT now FROM temp.given) - 3600000, (SELECT now FROM temp.given) - 3590000, 3, 120000, 3, 'done' FROM account WHERE mode = 'pop3';
