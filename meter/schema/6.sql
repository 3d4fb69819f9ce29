-- So many POP3 sessions of one day that fetched nothing, kept as one row; 0: a session that has a row of its own.
ALTER TABLE pop_session ADD COLUMN sessions INTEGER NOT NULL DEFAULT 0;
