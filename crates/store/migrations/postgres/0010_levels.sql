-- What the fleet achieved, by the minute for two hours and by the hour for a month: sums that add up.
CREATE TABLE mstore.service_level (
  length_s    bigint NOT NULL,  -- 60 or 3600
  at          bigint NOT NULL,  -- when the span began, milliseconds since 1970
  merchant_id text COLLATE "C" NOT NULL,
  figures     text NOT NULL,
  PRIMARY KEY (length_s, at, merchant_id)
);
