-- The source tables: what the shop knows. Write here with any SQL client while the server runs; triggers tell the server what changed.
--
-- Conventions, the same in every table:
--   …_milli    thousandths of a unit: 1250 is "1.25", 41000 is "41"
--   …_amount   minor units of the merchant's currency: 1250000 is Rp 12.500,00
--   …_at       RFC 3339 in UTC with three fractional digits: 2026-11-22T06:41:00.123Z
--   merchant_id, branch_id   1 to 64 of A-Z a-z 0-9 _ -

-- A business: one catalogue, any number of branches.
CREATE TABLE merchant (
  merchant_id     TEXT PRIMARY KEY CHECK (merchant_id NOT GLOB '*[^A-Za-z0-9_-]*' AND length(merchant_id) BETWEEN 1 AND 64 AND merchant_id NOT IN ('admin', 'devices')),
  name            TEXT NOT NULL,
  currency        TEXT NOT NULL CHECK (currency GLOB '[A-Z][A-Z][A-Z]'),                    -- ISO 4217, of every price and receipt
  stock_policy    TEXT NOT NULL DEFAULT 'warn'   CHECK (stock_policy IN ('allow', 'warn', 'block')),  -- below zero
  stock_authority TEXT NOT NULL DEFAULT 'mstore' CHECK (stock_authority IN ('mstore', 'backend'))    -- who decides what the stock is
) STRICT, WITHOUT ROWID;

-- A shop of a merchant.
CREATE TABLE branch (
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL CHECK (branch_id NOT GLOB '*[^A-Za-z0-9_-]*' AND length(branch_id) BETWEEN 1 AND 64 AND branch_id NOT IN ('admin', 'devices')),
  name        TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (merchant_id, branch_id)
) STRICT, WITHOUT ROWID;

-- The merchant's catalogue. Every branch sees every product.
CREATE TABLE product (
  merchant_id  TEXT NOT NULL,
  id           TEXT NOT NULL CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 128 AND instr(id, char(0)) = 0),
  sku          TEXT NOT NULL,
  barcode      TEXT,
  name         TEXT NOT NULL,
  category     TEXT,
  unit         TEXT NOT NULL DEFAULT 'pcs',
  price_amount INTEGER NOT NULL CHECK (price_amount BETWEEN -9007199254740991 AND 9007199254740991),
  track_stock  INTEGER NOT NULL DEFAULT 1 CHECK (track_stock IN (0, 1)),
  is_active    INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
  updated_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
               CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  PRIMARY KEY (merchant_id, id)
) STRICT, WITHOUT ROWID;

-- What a branch has of a product: its stock, and a price of its own if it has one. No row: stock 0, the merchant's price.
-- Setting stock_milli is allowed and becomes a movement in stock_move; better insert the movement itself.
CREATE TABLE branch_product (
  merchant_id      TEXT NOT NULL,
  branch_id        TEXT NOT NULL,
  product_id       TEXT NOT NULL,
  price_amount     INTEGER CHECK (price_amount BETWEEN -9007199254740991 AND 9007199254740991),  -- NULL: the merchant's price
  price_updated_at TEXT,                          -- kept by a trigger
  stock_milli      INTEGER NOT NULL DEFAULT 0,
  ledger_milli     INTEGER NOT NULL DEFAULT 0,    -- kept by triggers: the sum of the effects in stock_move; do not write it
  PRIMARY KEY (merchant_id, branch_id, product_id)
) STRICT, WITHOUT ROWID;

-- What is held and counted at a branch: an ingredient, a pack.
CREATE TABLE inventory (
  merchant_id         TEXT NOT NULL,
  branch_id           TEXT NOT NULL,
  id                  TEXT NOT NULL CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 128 AND instr(id, char(0)) = 0),
  name                TEXT NOT NULL,
  unit                TEXT NOT NULL DEFAULT 'pcs',
  quantity_milli      INTEGER NOT NULL DEFAULT 0,
  ledger_milli        INTEGER NOT NULL DEFAULT 0,  -- kept by triggers, as in branch_product
  reorder_level_milli INTEGER NOT NULL DEFAULT 0,
  updated_at          TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
                      CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9][0-9]Z'),
  PRIMARY KEY (merchant_id, branch_id, id)
) STRICT, WITHOUT ROWID;

-- What goes into one unit sold of a product.
CREATE TABLE recipe (
  merchant_id    TEXT NOT NULL,
  product_id     TEXT NOT NULL,
  item_id        TEXT NOT NULL,  -- inventory.id at each branch
  quantity_milli INTEGER NOT NULL CHECK (quantity_milli > 0),
  PRIMARY KEY (merchant_id, product_id, item_id)
) STRICT, WITHOUT ROWID;

-- Completed receipts. `body` is the row as devices see it; the other columns are read from it.
CREATE TABLE transactions (
  merchant_id   TEXT NOT NULL,
  branch_id     TEXT NOT NULL,
  id            TEXT NOT NULL CHECK (length(CAST(id AS BLOB)) BETWEEN 1 AND 128 AND instr(id, char(0)) = 0),
  recorded_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),  -- devices hold those of the last days
  body          TEXT NOT NULL CHECK (json_valid(body) AND json_extract(body, '$.id') = id),
  type          TEXT AS (json_extract(body, '$.type')),
  status        TEXT AS (json_extract(body, '$.status')),
  device_id     TEXT AS (json_extract(body, '$.device_id')),
  device_seq    INTEGER AS (json_extract(body, '$.device_seq')),
  receipt_no    TEXT AS (json_extract(body, '$.receipt_no')),
  occurred_at   TEXT AS (json_extract(body, '$.occurred_at')),
  business_date TEXT AS (json_extract(body, '$.business_date')),
  total_amount  INTEGER AS (json_extract(body, '$.total.amount')),
  PRIMARY KEY (merchant_id, branch_id, id)
) STRICT;
CREATE INDEX transactions_by_time ON transactions (recorded_at);

-- The ledger: every movement of stock, only ever added to. Inserting one moves the stock by its effect:
--   INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason)
--   VALUES ('m', 'b', 'my-id-1', 'product', 'SKU-00042', -2000, -2000, 'damaged');
CREATE TABLE stock_move (
  n              INTEGER PRIMARY KEY,
  merchant_id    TEXT NOT NULL,
  branch_id      TEXT NOT NULL,
  id             TEXT NOT NULL,                    -- idempotency key
  collection     TEXT NOT NULL CHECK (collection IN ('product', 'inventory')),
  item_id        TEXT NOT NULL,
  kind           TEXT NOT NULL DEFAULT 'delta' CHECK (kind IN ('delta', 'count', 'event', 'direct')),  -- direct: somebody set the stock by SQL
  quantity_milli INTEGER NOT NULL,                 -- signed delta, or what was counted
  effect_milli   INTEGER NOT NULL,                 -- what it did to the stock; 0 for a delta that a count already contained
  flag           TEXT,                             -- late_delta, near_count, below_zero
  type           TEXT,                             -- sale, return, receive, adjust, count, transfer
  operation_id   TEXT,
  journal_id     TEXT,
  device_seq     INTEGER,
  reason         TEXT NOT NULL DEFAULT '',
  occurred_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),  -- on the server's clock
  recorded_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  UNIQUE (merchant_id, id)
) STRICT;
CREATE INDEX stock_move_by_item ON stock_move (merchant_id, branch_id, collection, item_id, kind, occurred_at);

-- What devices did, each once, with its verdict.
CREATE TABLE operation (
  n               INTEGER PRIMARY KEY,
  merchant_id     TEXT NOT NULL,
  branch_id       TEXT NOT NULL,
  id              TEXT NOT NULL,
  device_id       TEXT NOT NULL,
  journal_id      TEXT NOT NULL,
  device_seq      INTEGER NOT NULL,
  type            TEXT NOT NULL,
  status          TEXT NOT NULL CHECK (status IN ('accepted', 'rejected')),
  code            TEXT,
  detail          TEXT,
  replaces        TEXT,
  seq             INTEGER,              -- the commit of the branch that contains its effect
  awaits_event    INTEGER NOT NULL DEFAULT 0,  -- 1: the backend that decides the stock has not named it yet
  occurred_at     TEXT,
  recorded_at     TEXT NOT NULL,
  body_hash       BLOB NOT NULL,        -- SHA-256 of the canonical body
  body            TEXT                  -- removed after some weeks
) STRICT;
CREATE UNIQUE INDEX operation_once ON operation (merchant_id, id);
CREATE INDEX operation_by_journal ON operation (device_id, journal_id, device_seq);
CREATE INDEX operation_by_branch ON operation (merchant_id, branch_id, n);
CREATE INDEX operation_by_commit ON operation (merchant_id, branch_id, device_id, seq) WHERE status = 'accepted';
CREATE INDEX operation_unsequenced ON operation (merchant_id, branch_id) WHERE seq IS NULL AND status = 'accepted' AND awaits_event = 0;
