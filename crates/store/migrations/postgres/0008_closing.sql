-- The ledger's old movements become one closing movement per item, and go to an archive: when `ledger_keep_days` is set, not otherwise.
-- A closing has kind 'direct', which moves no stock, and type 'closing', or 'transfer' for what was sent and received: so the sum of the ledger stays what it was.

-- Closed movements as they were. No server reads it: copy it away and empty it when you like.
CREATE TABLE mstore.stock_move_archive (LIKE mstore.stock_move);

-- The movements that are being closed: empty but within the transaction that does it.
CREATE TABLE mstore.ledger_closing (
  n          bigint PRIMARY KEY,
  is_closing bigint NOT NULL  -- 1: an earlier closing, which becomes part of this one
);

-- Movements up to this number were looked at.
INSERT INTO mstore.setting VALUES ('ledger_closed_n', '0');

CREATE OR REPLACE FUNCTION mstore.stock_move_kept() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM mstore.ledger_closing) THEN RETURN NULL; END IF;
  RAISE EXCEPTION 'the ledger only grows: insert a movement that corrects this one';
END
$$;
