-- The device's own database. Tables marked "server-owned" are written by the client library only; triggers refuse everybody else.
-- `only_the_sync_client_writes_here()` is a function that no program has: the statement fails by its name. The client's own connection runs no triggers.

-- Names and values of this device: enrolment, server_url, journal_id, device_seq, staging.
CREATE TABLE state (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Server-owned: what of the branch is shown. One row.
CREATE TABLE position (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  cursor  TEXT,
  digests TEXT NOT NULL DEFAULT '{}'
);
INSERT INTO position (one) VALUES (1);

-- Server-owned: the rows as the server sent them, canonical JSON.
CREATE TABLE row (
  collection TEXT NOT NULL,
  id         TEXT NOT NULL,
  seq        INTEGER NOT NULL,
  body       TEXT NOT NULL,
  hash       BLOB NOT NULL,
  PRIMARY KEY (collection, id)
) WITHOUT ROWID;

CREATE TRIGGER row_guard_insert BEFORE INSERT ON row WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'this table belongs to the server: write operations through the client instead'); END;
CREATE TRIGGER row_guard_update BEFORE UPDATE ON row WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'this table belongs to the server: write operations through the client instead'); END;
CREATE TRIGGER row_guard_delete BEFORE DELETE ON row WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'this table belongs to the server: write operations through the client instead'); END;

-- Rows of an answer that is not complete yet; body NULL: deleted. Never shown.
CREATE TABLE staging (
  n          INTEGER PRIMARY KEY,
  collection TEXT NOT NULL,
  id         TEXT NOT NULL,
  seq        INTEGER NOT NULL,
  body       TEXT,
  hash       BLOB
);

-- The journal: what this device did. `at` is its clock in milliseconds; `shown` is 1 once the stream contains the effect;
-- `named` is 1 once a commit has named it, or it was handed in again because none did.
CREATE TABLE operation (
  device_seq INTEGER PRIMARY KEY,
  id         TEXT NOT NULL UNIQUE,
  at         INTEGER NOT NULL,
  body       TEXT NOT NULL,
  state      TEXT NOT NULL CHECK (state IN ('queued', 'accepted', 'rejected', 'replaced', 'discarded')),
  shown      INTEGER NOT NULL DEFAULT 0,
  named      INTEGER NOT NULL DEFAULT 0,
  epoch      TEXT,
  seq        INTEGER,
  code       TEXT,
  detail     TEXT
);
CREATE INDEX operation_state ON operation (state);

CREATE TRIGGER operation_guard_delete BEFORE DELETE ON operation WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'operations are never deleted by hand: a receipt could be lost'); END;
CREATE TRIGGER operation_guard_update BEFORE UPDATE ON operation WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'operations are changed through the client only'); END;
CREATE TRIGGER operation_guard_insert BEFORE INSERT ON operation WHEN NOT only_the_sync_client_writes_here()
BEGIN SELECT RAISE(ABORT, 'operations are committed through the client only'); END;

-- What pending operations do to stock: the difference between the server's figure and the one shown. In thousandths.
CREATE TABLE pending_effect (
  collection TEXT NOT NULL,
  item_id    TEXT NOT NULL,
  device_seq INTEGER NOT NULL,
  n          INTEGER NOT NULL,
  is_base    INTEGER NOT NULL,
  milli      INTEGER NOT NULL,
  PRIMARY KEY (collection, item_id, device_seq, n)
) WITHOUT ROWID;
CREATE INDEX pending_effect_operation ON pending_effect (device_seq);

-- For people with SQL: the server's figures; add the sums of pending_effect for what the app shows.
CREATE VIEW product AS
  SELECT id, body ->> '$.sku' AS sku, body ->> '$.barcode' AS barcode, body ->> '$.name' AS name, body ->> '$.category' AS category,
         body ->> '$.unit' AS unit, body ->> '$.price.amount' AS price_amount, body ->> '$.price.currency' AS price_currency,
         body ->> '$.stock' AS stock, body ->> '$.is_active' AS is_active, body ->> '$.updated_at' AS updated_at, seq
  FROM row WHERE collection = 'product';
CREATE VIEW inventory AS
  SELECT id, body ->> '$.name' AS name, body ->> '$.unit' AS unit, body ->> '$.quantity' AS quantity,
         body ->> '$.reorder_level' AS reorder_level, body ->> '$.updated_at' AS updated_at, seq
  FROM row WHERE collection = 'inventory';
CREATE VIEW transaction_view AS
  SELECT id, body ->> '$.type' AS type, body ->> '$.status' AS status, body ->> '$.device_id' AS device_id,
         body ->> '$.device_seq' AS device_seq, body ->> '$.receipt_no' AS receipt_no, body ->> '$.occurred_at' AS occurred_at,
         body ->> '$.business_date' AS business_date, body ->> '$.total.amount' AS total_amount,
         body ->> '$.total.currency' AS total_currency, seq
  FROM row WHERE collection = 'transaction';
