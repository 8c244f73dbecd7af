-- Admin tokens with roles, the audit log, and what a device's token has behind it.

CREATE TABLE admin_token (
  name          TEXT PRIMARY KEY,
  role          TEXT NOT NULL CHECK (role IN ('platform', 'merchant', 'read_only')),
  merchant_id   TEXT,            -- NULL: everywhere
  hash          BLOB NOT NULL,   -- SHA-256 of the token: 256 random bits need no slow hash
  previous_hash BLOB,            -- of the text before the last rotation
  old_until     TEXT,            -- when that one ends; NULL: at the first use of the new one
  created_at    TEXT NOT NULL,
  rotated_at    TEXT,
  expires_at    TEXT,
  revoked_at    TEXT,
  CHECK ((role <> 'merchant' OR merchant_id IS NOT NULL) AND (role <> 'platform' OR merchant_id IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX admin_token_by_hash ON admin_token (hash);
CREATE UNIQUE INDEX admin_token_by_previous ON admin_token (previous_hash) WHERE previous_hash IS NOT NULL;

-- Texts that opened something once: an old file does not bring them back.
CREATE TABLE admin_token_ended (
  hash     BLOB PRIMARY KEY,
  name     TEXT NOT NULL,
  ended_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Only grows, until its rows are old.
CREATE TABLE audit (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          TEXT NOT NULL,
  action      TEXT NOT NULL,
  role        TEXT NOT NULL,
  actor       TEXT NOT NULL,
  address     TEXT,
  merchant_id TEXT,
  branch_id   TEXT,
  device_id   TEXT,
  subject     TEXT,
  detail      TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_merchant ON audit (merchant_id, id);
CREATE INDEX audit_by_device ON audit (device_id, id);
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN
  SELECT RAISE(ABORT, 'the audit log only grows');
END;

ALTER TABLE device ADD COLUMN token_at TEXT;  -- when its newest token was made
ALTER TABLE device ADD COLUMN lost_at TEXT;   -- revoked because nobody knows where it is
UPDATE device SET token_at = created_at;
