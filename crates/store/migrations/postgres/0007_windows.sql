-- How long rows stay on the devices, where it is not what the server's settings say.

-- Days that the transactions of a merchant stay on the devices; no row: `transaction_window_days` of the servers. Set it with any SQL client:
--   INSERT INTO mstore.transaction_window VALUES ('m', 30) ON CONFLICT (merchant_id) DO UPDATE SET days = excluded.days;
CREATE TABLE mstore.transaction_window (
  merchant_id text COLLATE "C" PRIMARY KEY,
  days        bigint NOT NULL CHECK (days BETWEEN 1 AND 3660)
);
-- Where such a window begins: transactions recorded before it are on no device. Kept by the servers, which mark what leaves and what comes back.
CREATE TABLE mstore.transaction_cutoff (
  merchant_id text COLLATE "C" PRIMARY KEY,
  cutoff      text COLLATE "C" NOT NULL
);

-- The same of an attached collection whose mapping has a `window`.
ALTER TABLE mstore.attached ADD COLUMN cutoff timestamptz;
