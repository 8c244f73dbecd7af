-- What the fleet achieved, by the minute for two hours and by the hour for a month: sums that add up.
CREATE TABLE service_level (
  length_s    INTEGER NOT NULL,  -- 60 or 3600
  at          INTEGER NOT NULL,  -- when the span began, milliseconds since 1970
  merchant_id TEXT NOT NULL,
  figures     TEXT NOT NULL,
  PRIMARY KEY (length_s, at, merchant_id)
) STRICT, WITHOUT ROWID;
