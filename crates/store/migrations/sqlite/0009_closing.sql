-- The ledger's old movements become one closing movement per item, and go to an archive: when `ledger_keep_days` is set, not otherwise.
-- A closing has kind 'direct', which moves no stock, and type 'closing', or 'transfer' for what was sent and received: so the sum of the ledger stays what it was.

-- Closed movements as they were. The server does not read it: copy it away and empty it when you like.
CREATE TABLE stock_move_archive (
  n              INTEGER NOT NULL,
  merchant_id    TEXT NOT NULL,
  branch_id      TEXT NOT NULL,
  id             TEXT NOT NULL,
  collection     TEXT NOT NULL,
  item_id        TEXT NOT NULL,
  kind           TEXT NOT NULL,
  quantity_milli INTEGER NOT NULL,
  effect_milli   INTEGER NOT NULL,
  flag           TEXT,
  type           TEXT,
  operation_id   TEXT,
  journal_id     TEXT,
  device_seq     INTEGER,
  reason         TEXT NOT NULL,
  occurred_at    TEXT NOT NULL,
  recorded_at    TEXT NOT NULL
) STRICT;

-- The movements that are being closed: empty but within the transaction that does it.
CREATE TABLE ledger_closing (
  n          INTEGER PRIMARY KEY,
  is_closing INTEGER NOT NULL  -- 1: an earlier closing, which becomes part of this one
) STRICT;

-- Movements up to this number were looked at.
INSERT INTO setting VALUES ('ledger_closed_n', '0');

DROP TRIGGER stock_move_delete;
CREATE TRIGGER stock_move_delete BEFORE DELETE ON stock_move WHEN NOT EXISTS (SELECT 1 FROM ledger_closing WHERE n = OLD.n) BEGIN
  SELECT RAISE(ABORT, 'the ledger only grows: insert a movement that corrects this one');
END;
