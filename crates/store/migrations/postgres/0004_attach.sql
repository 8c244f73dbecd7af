-- Tables of others that are collections: which, how, and in what state they were when they were attached.

CREATE TABLE mstore.attached (
  collection  text COLLATE "C" PRIMARY KEY,
  mapping     jsonb NOT NULL,                 -- as the configuration file has it
  currency    text COLLATE "C" NOT NULL,      -- of money that does not say its own
  relation    oid NOT NULL,                   -- the table, whatever it is called now
  tables      jsonb NOT NULL,                 -- it and what it is joined with, as they were: columns, keys, partitions
  version     bigint NOT NULL DEFAULT 1,      -- grows with every change of this row: servers read it again
  stopped     text,                           -- why devices keep what they have; NULL: it flows
  attached_at text COLLATE "C" NOT NULL
);

-- Rows that belong to no branch: they are on no device. Rows of a branch that cannot be rows are in `alarm` (row_quarantined).
CREATE TABLE mstore.stray (
  collection text COLLATE "C" NOT NULL,
  id         text COLLATE "C" NOT NULL,
  reason     text NOT NULL,
  at         text COLLATE "C" NOT NULL,
  PRIMARY KEY (collection, id)
);

-- A value of somebody's branch or merchant column as an id of ours: itself if it can be one, otherwise what of it can, and a hash that tells it from others.
CREATE FUNCTION mstore.segment(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE
     WHEN value = '' THEN NULL
     WHEN value ~ '^[A-Za-z0-9_-]{1,64}$' AND value NOT IN ('admin', 'devices') THEN value
     ELSE pg_catalog.left(pg_catalog.regexp_replace(value, '[^A-Za-z0-9_-]+', '-', 'g'), 47) || '-'
       || pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(value, 'UTF8')), 'hex'), 16) END $$;

-- A new branch gets what attached tables have for it.
CREATE FUNCTION mstore.branch_attached() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)
    SELECT a.collection, '', '*', b.merchant_id || '/' || b.branch_id FROM new_rows b CROSS JOIN mstore.attached a;
  RETURN NULL;
END
$$;
CREATE TRIGGER branch_attached AFTER INSERT ON mstore.branch REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_attached();
ALTER TABLE mstore.branch ENABLE ALWAYS TRIGGER branch_attached;
