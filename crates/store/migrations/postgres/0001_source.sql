-- The source tables: what the shop knows. Write here with any SQL client while the servers run; triggers tell them what changed.
--
-- Conventions, the same in every table:
--   …_milli    thousandths of a unit: 1250 is "1.25", 41000 is "41"
--   …_amount   minor units of the merchant's currency: 1250000 is Rp 12.500,00
--   …_at       RFC 3339 in UTC with three fractional digits: 2026-11-22T06:41:00.123Z
--   merchant_id, branch_id   1 to 64 of A-Z a-z 0-9 _ -
-- Ids, names of branches and times are compared byte by byte (COLLATE "C"), as devices do.

-- Now, as these tables write it.
CREATE FUNCTION mstore.utc_now() RETURNS text LANGUAGE sql VOLATILE PARALLEL SAFE AS
$$ SELECT pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

-- A business: one catalogue, any number of branches.
CREATE TABLE mstore.merchant (
  merchant_id     text COLLATE "C" PRIMARY KEY CHECK (merchant_id ~ '^[A-Za-z0-9_-]{1,64}$' AND merchant_id NOT IN ('admin', 'devices')),
  name            text NOT NULL,
  currency        text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),                    -- ISO 4217, of every price and receipt
  stock_policy    text NOT NULL DEFAULT 'warn'   CHECK (stock_policy IN ('allow', 'warn', 'block')),  -- below zero
  stock_authority text NOT NULL DEFAULT 'mstore' CHECK (stock_authority IN ('mstore', 'backend'))     -- who decides what the stock is
);

-- A shop of a merchant.
CREATE TABLE mstore.branch (
  merchant_id text COLLATE "C" NOT NULL,
  branch_id   text COLLATE "C" NOT NULL CHECK (branch_id ~ '^[A-Za-z0-9_-]{1,64}$' AND branch_id NOT IN ('admin', 'devices')),
  name        text NOT NULL DEFAULT '',
  PRIMARY KEY (merchant_id, branch_id)
) WITH (fillfactor = 80);

-- The merchant's catalogue. Every branch sees every product.
CREATE TABLE mstore.product (
  merchant_id  text COLLATE "C" NOT NULL,
  id           text COLLATE "C" NOT NULL CHECK (octet_length(id) BETWEEN 1 AND 128),
  sku          text COLLATE "C" NOT NULL,
  barcode      text,
  name         text NOT NULL,
  category     text,
  unit         text NOT NULL DEFAULT 'pcs',
  price_amount bigint NOT NULL CHECK (price_amount BETWEEN -9007199254740991 AND 9007199254740991),
  track_stock  bigint NOT NULL DEFAULT 1 CHECK (track_stock IN (0, 1)),
  is_active    bigint NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
  updated_at   text COLLATE "C" NOT NULL DEFAULT mstore.utc_now()
               CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.][0-9]{3}Z$'),
  PRIMARY KEY (merchant_id, id)
) WITH (fillfactor = 90);
-- Our own API gives a sku to one product of a merchant only, and looks for it here. Not unique: a catalogue written by SQL may do as it likes.
CREATE INDEX product_by_sku ON mstore.product (merchant_id, sku);

-- What a branch has of a product: its stock, and a price of its own if it has one. No row: stock 0, the merchant's price.
-- Setting stock_milli is allowed and becomes a movement in stock_move; better insert the movement itself.
CREATE TABLE mstore.branch_product (
  merchant_id      text COLLATE "C" NOT NULL,
  branch_id        text COLLATE "C" NOT NULL,
  product_id       text COLLATE "C" NOT NULL,
  price_amount     bigint CHECK (price_amount BETWEEN -9007199254740991 AND 9007199254740991),  -- NULL: the merchant's price
  price_updated_at text COLLATE "C",                 -- kept by a trigger
  stock_milli      bigint NOT NULL DEFAULT 0,
  ledger_milli     bigint NOT NULL DEFAULT 0,        -- kept by triggers: the sum of the effects in stock_move; do not write it
  PRIMARY KEY (merchant_id, branch_id, product_id)
) WITH (fillfactor = 80);

-- What is held and counted at a branch: an ingredient, a pack.
CREATE TABLE mstore.inventory (
  merchant_id         text COLLATE "C" NOT NULL,
  branch_id           text COLLATE "C" NOT NULL,
  id                  text COLLATE "C" NOT NULL CHECK (octet_length(id) BETWEEN 1 AND 128),
  name                text NOT NULL,
  unit                text NOT NULL DEFAULT 'pcs',
  quantity_milli      bigint NOT NULL DEFAULT 0,
  ledger_milli        bigint NOT NULL DEFAULT 0,     -- kept by triggers, as in branch_product
  reorder_level_milli bigint NOT NULL DEFAULT 0,
  updated_at          text COLLATE "C" NOT NULL DEFAULT mstore.utc_now()
                      CHECK (updated_at ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.][0-9]{3}Z$'),
  PRIMARY KEY (merchant_id, branch_id, id)
) WITH (fillfactor = 80);

-- What goes into one unit sold of a product.
CREATE TABLE mstore.recipe (
  merchant_id    text COLLATE "C" NOT NULL,
  product_id     text COLLATE "C" NOT NULL,
  item_id        text COLLATE "C" NOT NULL,  -- inventory.id at each branch
  quantity_milli bigint NOT NULL CHECK (quantity_milli > 0),
  PRIMARY KEY (merchant_id, product_id, item_id)
);

-- Completed receipts. `body` is the row as devices see it; the view `receipt` shows what is in it.
CREATE TABLE mstore.transactions (
  merchant_id   text COLLATE "C" NOT NULL,
  branch_id     text COLLATE "C" NOT NULL,
  id            text COLLATE "C" NOT NULL CHECK (octet_length(id) BETWEEN 1 AND 128),
  recorded_at   text COLLATE "C" NOT NULL DEFAULT mstore.utc_now(),  -- devices hold those of the last days
  body          text NOT NULL CHECK (body::json ->> 'id' = id),
  PRIMARY KEY (merchant_id, branch_id, id)
);
CREATE INDEX transactions_by_time ON mstore.transactions (recorded_at);

CREATE VIEW mstore.receipt AS SELECT merchant_id, branch_id, id, recorded_at,
  body::json ->> 'type' AS type, body::json ->> 'status' AS status, body::json ->> 'device_id' AS device_id,
  (body::json ->> 'device_seq')::bigint AS device_seq, body::json ->> 'receipt_no' AS receipt_no, body::json ->> 'occurred_at' AS occurred_at,
  body::json ->> 'business_date' AS business_date, (body::json #>> '{total,amount}')::bigint AS total_amount
  FROM mstore.transactions;

-- The ledger: every movement of stock, only ever added to. Inserting one moves the stock by its effect:
--   INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, quantity_milli, effect_milli, reason)
--   VALUES ('m', 'b', 'my-id-1', 'product', 'SKU-00042', -2000, -2000, 'damaged');
CREATE TABLE mstore.stock_move (
  n              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  merchant_id    text COLLATE "C" NOT NULL,
  branch_id      text COLLATE "C" NOT NULL,
  id             text COLLATE "C" NOT NULL,          -- idempotency key
  collection     text COLLATE "C" NOT NULL CHECK (collection IN ('product', 'inventory')),
  item_id        text COLLATE "C" NOT NULL,
  kind           text COLLATE "C" NOT NULL DEFAULT 'delta' CHECK (kind IN ('delta', 'count', 'event', 'direct')),  -- direct: somebody set the stock by SQL
  quantity_milli bigint NOT NULL,                    -- signed delta, or what was counted
  effect_milli   bigint NOT NULL,                    -- what it did to the stock; 0 for a delta that a count already contained
  flag           text,                               -- late_delta, near_count, below_zero
  type           text,                               -- sale, return, receive, adjust, count, transfer
  operation_id   text COLLATE "C",
  journal_id     text COLLATE "C",
  device_seq     bigint,
  reason         text NOT NULL DEFAULT '',
  occurred_at    text COLLATE "C" NOT NULL DEFAULT mstore.utc_now(),  -- on the server's clock
  recorded_at    text COLLATE "C" NOT NULL DEFAULT mstore.utc_now(),
  UNIQUE (merchant_id, id)
);
CREATE INDEX stock_move_by_item ON mstore.stock_move (merchant_id, branch_id, collection, item_id, kind, occurred_at);

-- What devices did, each once, with its verdict.
CREATE TABLE mstore.operation (
  n               bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  merchant_id     text COLLATE "C" NOT NULL,
  branch_id       text COLLATE "C" NOT NULL,
  id              text COLLATE "C" NOT NULL,
  device_id       text COLLATE "C" NOT NULL,
  journal_id      text COLLATE "C" NOT NULL,
  device_seq      bigint NOT NULL,
  type            text NOT NULL,
  status          text NOT NULL CHECK (status IN ('accepted', 'rejected')),
  code            text,
  detail          text,
  replaces        text COLLATE "C",
  seq             bigint,                            -- the commit of the branch that contains its effect
  awaits_event    bigint NOT NULL DEFAULT 0,         -- 1: the backend that decides the stock has not named it yet
  occurred_at     text COLLATE "C",
  recorded_at     text COLLATE "C" NOT NULL,
  body_hash       bytea NOT NULL,                    -- SHA-256 of the canonical body
  body            text,                              -- removed after some weeks
  clock_offset_ms bigint NOT NULL DEFAULT 0,         -- server clock minus device clock, as sent with the upload; an operator's retry needs it
  is_reused       bigint NOT NULL DEFAULT 0          -- 1: the id came again with another body, and that was rejected; a new operation may take its place
) WITH (fillfactor = 85);
CREATE UNIQUE INDEX operation_once ON mstore.operation (merchant_id, id);
CREATE INDEX operation_by_journal ON mstore.operation (device_id, journal_id, device_seq);
CREATE INDEX operation_by_branch ON mstore.operation (merchant_id, branch_id, n);
CREATE INDEX operation_by_commit ON mstore.operation (merchant_id, branch_id, device_id, seq) WHERE status = 'accepted';
CREATE INDEX operation_unsequenced ON mstore.operation (merchant_id, branch_id) WHERE seq IS NULL AND status = 'accepted' AND awaits_event = 0;
CREATE INDEX operation_rejected ON mstore.operation (merchant_id, n) WHERE status = 'rejected';

-- The one decision about a rejected operation, the device's or an operator's: whoever comes first. The operation itself may never have arrived.
CREATE TABLE mstore.operation_decision (
  merchant_id text COLLATE "C" NOT NULL,
  id          text COLLATE "C" NOT NULL,
  decision    text NOT NULL CHECK (decision IN ('replaced', 'discarded')),
  replaced_by text COLLATE "C" CHECK ((replaced_by IS NOT NULL) = (decision = 'replaced')),
  decided_by  text NOT NULL CHECK (decided_by IN ('device', 'operator')),
  reason      text NOT NULL DEFAULT '',
  decided_at  text COLLATE "C" NOT NULL,
  PRIMARY KEY (merchant_id, id)
);

-- Movements that took more than there was, for the manager. The ledger itself only grows.
CREATE TABLE mstore.oversell (
  n              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  merchant_id    text COLLATE "C" NOT NULL,
  branch_id      text COLLATE "C" NOT NULL,
  move_id        text COLLATE "C" NOT NULL,
  collection     text COLLATE "C" NOT NULL,
  item_id        text COLLATE "C" NOT NULL,
  type           text,
  operation_id   text COLLATE "C",
  quantity_milli bigint NOT NULL,
  stock_milli    bigint NOT NULL,  -- after the movement
  recorded_at    text COLLATE "C" NOT NULL,
  settled_at     text COLLATE "C",
  note           text
);
CREATE INDEX oversell_by_merchant ON mstore.oversell (merchant_id, n);

-- Goods sent from one branch to another: out there by one movement, in here by another; in transit between the two.
CREATE TABLE mstore.transfer (
  n              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  merchant_id    text COLLATE "C" NOT NULL,
  id             text COLLATE "C" NOT NULL,  -- of the operation
  from_branch    text COLLATE "C" NOT NULL,
  to_branch      text COLLATE "C" NOT NULL,
  collection     text COLLATE "C" NOT NULL,
  item_id        text COLLATE "C" NOT NULL,
  quantity_milli bigint NOT NULL,
  sent_at        text COLLATE "C" NOT NULL,
  arrived_at     text COLLATE "C",           -- NULL: in transit
  UNIQUE (merchant_id, id)
);

-- on_receipt: transfers stay in transit until the receiving branch says that they are there. No row: they arrive at once.
CREATE TABLE mstore.transfer_arrival (
  merchant_id text COLLATE "C" PRIMARY KEY,
  arrival     text NOT NULL CHECK (arrival IN ('at_once', 'on_receipt'))
);
