-- Rejected operations and what becomes of them, gaps that a wild number cannot hide, sales of what was not there, goods under way.

-- clock_offset_ms: server clock minus device clock, as sent with the upload; an operator's retry needs it.
ALTER TABLE operation ADD COLUMN clock_offset_ms INTEGER NOT NULL DEFAULT 0;
-- 1: the id came again with another body, and that was rejected; a new operation may then take its place.
ALTER TABLE operation ADD COLUMN is_reused INTEGER NOT NULL DEFAULT 0;
CREATE INDEX operation_rejected ON operation (merchant_id, n) WHERE status = 'rejected';

-- The one decision about a rejected operation, the device's or an operator's: whoever comes first. The operation itself may never have arrived.
CREATE TABLE operation_decision (
  merchant_id TEXT NOT NULL,
  id          TEXT NOT NULL,
  decision    TEXT NOT NULL CHECK (decision IN ('replaced', 'discarded')),
  replaced_by TEXT CHECK ((replaced_by IS NOT NULL) = (decision = 'replaced')),
  decided_by  TEXT NOT NULL CHECK (decided_by IN ('device', 'operator')),
  reason      TEXT NOT NULL DEFAULT '',
  decided_at  TEXT NOT NULL,
  PRIMARY KEY (merchant_id, id)
) STRICT, WITHOUT ROWID;

-- Journals of devices: runs of numbers. The first begins at 1, a number too far beyond it begins another, with an alarm; journal_gap has what is missing within.
CREATE TABLE journal_run (
  device_id  TEXT NOT NULL,
  journal_id TEXT NOT NULL,
  first_seq  INTEGER NOT NULL,
  last_seq   INTEGER NOT NULL,
  alarm      INTEGER,
  PRIMARY KEY (device_id, journal_id, first_seq)
) STRICT, WITHOUT ROWID;
INSERT INTO journal_run (device_id, journal_id, first_seq, last_seq) SELECT device_id, journal_id, 1, last_seq FROM journal;
DROP TABLE journal;

-- Movements that took more than there was, for the manager. The ledger itself only grows.
CREATE TABLE oversell (
  n              INTEGER PRIMARY KEY,
  merchant_id    TEXT NOT NULL,
  branch_id      TEXT NOT NULL,
  move_id        TEXT NOT NULL,
  collection     TEXT NOT NULL,
  item_id        TEXT NOT NULL,
  type           TEXT,
  operation_id   TEXT,
  quantity_milli INTEGER NOT NULL,
  stock_milli    INTEGER NOT NULL,  -- after the movement
  recorded_at    TEXT NOT NULL,
  settled_at     TEXT,
  note           TEXT
) STRICT;
CREATE INDEX oversell_by_merchant ON oversell (merchant_id, n);

-- Goods sent from one branch to another: out there by one movement, in here by another; in transit between the two.
CREATE TABLE transfer (
  n              INTEGER PRIMARY KEY,
  merchant_id    TEXT NOT NULL,
  id             TEXT NOT NULL,  -- of the operation
  from_branch    TEXT NOT NULL,
  to_branch      TEXT NOT NULL,
  collection     TEXT NOT NULL,
  item_id        TEXT NOT NULL,
  quantity_milli INTEGER NOT NULL,
  sent_at        TEXT NOT NULL,
  arrived_at     TEXT,           -- NULL: in transit
  UNIQUE (merchant_id, id)
) STRICT;
INSERT INTO transfer (merchant_id, id, from_branch, to_branch, collection, item_id, quantity_milli, sent_at, arrived_at)
  SELECT o.merchant_id, o.operation_id, o.branch_id, i.branch_id, o.collection, o.item_id, i.quantity_milli, o.recorded_at, i.recorded_at
  FROM stock_move o JOIN stock_move i ON i.merchant_id = o.merchant_id AND i.id = o.operation_id || ':2'
  WHERE o.type = 'transfer' AND o.id = o.operation_id || ':1';

-- on_receipt: transfers stay in transit until the receiving branch says that they are there. No row: they arrive at once.
CREATE TABLE transfer_arrival (
  merchant_id TEXT PRIMARY KEY,
  arrival     TEXT NOT NULL CHECK (arrival IN ('at_once', 'on_receipt'))
) STRICT, WITHOUT ROWID;
