-- The key from which salts for log-ins that do not exist are made, so that such a log-in has the same
-- one from every daemon and after every start, as one that exists has.
CREATE TABLE decoy (key BLOB NOT NULL CHECK (length(key) = 32)) STRICT;
INSERT INTO decoy (key) VALUES (randomblob(32));
