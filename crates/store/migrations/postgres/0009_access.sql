-- Admin tokens with roles, the audit log, and what a device's token has behind it.

CREATE TABLE mstore.admin_token (
  name          text COLLATE "C" PRIMARY KEY,
  role          text NOT NULL CHECK (role IN ('platform', 'merchant', 'read_only')),
  merchant_id   text COLLATE "C",            -- NULL: everywhere
  hash          bytea NOT NULL UNIQUE,   -- SHA-256 of the token: 256 random bits need no slow hash
  previous_hash bytea UNIQUE,    -- of the text before the last rotation
  old_until     text COLLATE "C",            -- when that one ends; NULL: at the first use of the new one
  created_at    text COLLATE "C" NOT NULL,
  rotated_at    text COLLATE "C",
  expires_at    text COLLATE "C",
  revoked_at    text COLLATE "C",
  CHECK ((role <> 'merchant' OR merchant_id IS NOT NULL) AND (role <> 'platform' OR merchant_id IS NULL))
);

-- Texts that opened something once: an old file does not bring them back.
CREATE TABLE mstore.admin_token_ended (
  hash     bytea PRIMARY KEY,
  name     text COLLATE "C" NOT NULL,
  ended_at text COLLATE "C" NOT NULL
);

-- Only grows, until its rows are old.
CREATE TABLE mstore.audit (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at          text COLLATE "C" NOT NULL,
  action      text COLLATE "C" NOT NULL,
  role        text NOT NULL,
  actor       text COLLATE "C" NOT NULL,
  address     text,
  merchant_id text COLLATE "C",
  branch_id   text COLLATE "C",
  device_id   text COLLATE "C",
  subject     text COLLATE "C",
  detail      text NOT NULL
);
CREATE INDEX audit_by_time ON mstore.audit (at);
CREATE INDEX audit_by_merchant ON mstore.audit (merchant_id, id);
CREATE INDEX audit_by_device ON mstore.audit (device_id, id);

CREATE FUNCTION mstore.audit_kept() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'the audit log only grows';
END
$$;
CREATE TRIGGER audit_update BEFORE UPDATE ON mstore.audit FOR EACH ROW EXECUTE FUNCTION mstore.audit_kept();

ALTER TABLE mstore.device ADD COLUMN token_at text COLLATE "C";  -- when its newest token was made
ALTER TABLE mstore.device ADD COLUMN lost_at text COLLATE "C";   -- revoked because nobody knows where it is
UPDATE mstore.device SET token_at = created_at;
