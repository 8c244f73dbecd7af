-- What took the place of a rejected operation, whether the server knows of the decision, and whether it was an operator's: then this device has no body of
-- what took its place, and hands it in again if the server forgets.
ALTER TABLE operation ADD COLUMN replaced_by TEXT;
ALTER TABLE operation ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operation ADD COLUMN by_operator INTEGER NOT NULL DEFAULT 0;
CREATE INDEX operation_untold ON operation (device_seq) WHERE state IN ('replaced', 'discarded') AND told = 0;
