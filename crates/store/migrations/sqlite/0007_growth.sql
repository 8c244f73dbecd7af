-- Deletions are forgotten by looking at the deletions only: by `mirror_by_seq` each look reads every row that a branch has.
CREATE INDEX mirror_tombstones ON mirror (head, seq) WHERE row IS NULL;
