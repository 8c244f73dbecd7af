-- What the server keeps for its devices. Nobody else writes here.

-- The head of each branch; `floor` is the seq up to which tombstones were forgotten.
CREATE TABLE head (
  n           INTEGER PRIMARY KEY,
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  epoch       TEXT NOT NULL,
  seq         INTEGER NOT NULL,
  tag         TEXT NOT NULL,
  at          TEXT NOT NULL,
  floor       INTEGER NOT NULL DEFAULT 0,
  UNIQUE (merchant_id, branch_id)
) STRICT;

CREATE TABLE head_collection (
  head       INTEGER NOT NULL,
  collection TEXT NOT NULL,
  digest     TEXT NOT NULL,
  last_seq   INTEGER NOT NULL,
  rows       INTEGER NOT NULL,
  PRIMARY KEY (head, collection)
) STRICT, WITHOUT ROWID;

-- Every commit down to the floor: tells a cursor that this database gave out from one that it does not remember.
CREATE TABLE commit_log (
  head INTEGER NOT NULL,
  seq  INTEGER NOT NULL,
  tag  TEXT NOT NULL,
  at   TEXT NOT NULL,
  PRIMARY KEY (head, seq)
) STRICT, WITHOUT ROWID;

-- What devices have; a NULL row is a tombstone.
CREATE TABLE mirror (
  n          INTEGER PRIMARY KEY,
  head       INTEGER NOT NULL,
  collection TEXT NOT NULL,
  id         TEXT NOT NULL,
  seq        INTEGER NOT NULL,
  bucket     INTEGER NOT NULL,
  hash       BLOB,
  row        TEXT,
  UNIQUE (head, collection, id)
) STRICT;
CREATE UNIQUE INDEX mirror_by_seq ON mirror (head, seq, collection, id);

-- Frames not yet acknowledged by the broker; no collection: publish the head.
CREATE TABLE outbox (
  id         INTEGER PRIMARY KEY,
  head       INTEGER NOT NULL,
  seq        INTEGER NOT NULL,
  at         TEXT NOT NULL,
  collection TEXT,
  payload    TEXT
) STRICT;
CREATE INDEX outbox_by_head ON outbox (head);

-- Branches whose next commit waits for an operator.
CREATE TABLE hold (
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  at          TEXT NOT NULL,
  detail      TEXT NOT NULL,
  PRIMARY KEY (merchant_id, branch_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE alarm (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          TEXT NOT NULL,
  kind        TEXT NOT NULL,
  merchant_id TEXT,
  branch_id   TEXT,
  device_id   TEXT,
  detail      TEXT NOT NULL,
  cleared_at  TEXT
) STRICT;
CREATE INDEX alarm_open ON alarm (kind, merchant_id, branch_id) WHERE cleared_at IS NULL;

-- Devices, the branches they were ever assigned to, their claims.
CREATE TABLE device (
  device_id           TEXT PRIMARY KEY,
  merchant_id         TEXT NOT NULL,
  branch_id           TEXT NOT NULL,
  name                TEXT NOT NULL,
  status              TEXT NOT NULL CHECK (status IN ('claimed', 'active', 'revoked')),
  generation          INTEGER NOT NULL,
  previous_generation INTEGER,
  created_at          TEXT NOT NULL,
  revoked_at          TEXT,
  reported_at         TEXT,
  report              TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX device_by_branch ON device (merchant_id, branch_id, device_id);

CREATE TABLE device_branch (
  device_id TEXT NOT NULL,
  branch_id TEXT NOT NULL,
  PRIMARY KEY (device_id, branch_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE claim (
  code_hash   BLOB PRIMARY KEY,
  device_id   TEXT NOT NULL,
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  name        TEXT NOT NULL,
  expires_at  TEXT NOT NULL,
  nonce       TEXT,
  redeemed_at TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_by_device ON claim (device_id);

-- Journals of devices: the highest number seen, and the ranges missing below it.
CREATE TABLE journal (
  device_id  TEXT NOT NULL,
  journal_id TEXT NOT NULL,
  last_seq   INTEGER NOT NULL,
  PRIMARY KEY (device_id, journal_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE journal_gap (
  device_id  TEXT NOT NULL,
  journal_id TEXT NOT NULL,
  first_seq  INTEGER NOT NULL,
  last_seq   INTEGER NOT NULL,
  alarm      INTEGER NOT NULL,
  PRIMARY KEY (device_id, journal_id, first_seq)
) STRICT, WITHOUT ROWID;

-- Events of backends: keys seen, versions of rows, operations named before they were uploaded.
CREATE TABLE event_seen (
  n           INTEGER PRIMARY KEY,
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  key         TEXT NOT NULL,
  body_hash   BLOB NOT NULL,
  seq         INTEGER,
  recorded_at TEXT NOT NULL,
  UNIQUE (merchant_id, branch_id, key)
) STRICT;
CREATE INDEX event_unsequenced ON event_seen (merchant_id, branch_id) WHERE seq IS NULL;
CREATE TABLE event_version (
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  collection  TEXT NOT NULL,
  id          TEXT NOT NULL,
  version     INTEGER NOT NULL,
  PRIMARY KEY (merchant_id, branch_id, collection, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE event_operation (
  merchant_id TEXT NOT NULL,
  id          TEXT NOT NULL,
  PRIMARY KEY (merchant_id, id)
) STRICT, WITHOUT ROWID;

-- transaction_cutoff: transactions recorded before it are on no device.
CREATE TABLE setting (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO setting VALUES ('transaction_cutoff', '0000-01-01T00:00:00.000Z');
