-- How long rows stay on the devices, where it is not what the server's settings say.

-- Days that the transactions of a merchant stay on the devices; no row: `transaction_window_days` of the server. Set it with any SQL client:
--   INSERT INTO transaction_window VALUES ('m', 30) ON CONFLICT (merchant_id) DO UPDATE SET days = excluded.days;
CREATE TABLE transaction_window (
  merchant_id TEXT PRIMARY KEY,
  days        INTEGER NOT NULL CHECK (days BETWEEN 1 AND 3660)
) STRICT, WITHOUT ROWID;
-- Where such a window begins: transactions recorded before it are on no device. Kept by the server, which marks what leaves and what comes back.
CREATE TABLE transaction_cutoff (
  merchant_id TEXT PRIMARY KEY,
  cutoff      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
