-- The device was moved since: the operation belongs to another branch and is never handed in at this one.
ALTER TABLE operation ADD COLUMN elsewhere INTEGER NOT NULL DEFAULT 0;
