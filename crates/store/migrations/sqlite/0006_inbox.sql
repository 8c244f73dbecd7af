-- Operations that a merchant's backend decides about: it reads them here, or a webhook brings them, and its verdict comes back the same way.
--   SELECT n, branch_id, id, type, body FROM operation_inbox WHERE verdict IS NULL ORDER BY n LIMIT 100;
--   UPDATE operation_inbox SET verdict = 'rejected', code = 'out_of_stock', detail = 'two are left' WHERE merchant_id = 'm' AND id = '0197…';
CREATE TABLE operation_inbox (
  n               INTEGER PRIMARY KEY,
  merchant_id     TEXT NOT NULL,
  branch_id       TEXT NOT NULL,
  id              TEXT NOT NULL,   -- of the operation: the idempotency key
  device_id       TEXT NOT NULL,
  journal_id      TEXT NOT NULL,
  device_seq      INTEGER NOT NULL,
  type            TEXT NOT NULL,
  body            TEXT NOT NULL,   -- the operation as the device sent it, JSON
  received_at     TEXT NOT NULL,
  attempts        INTEGER NOT NULL DEFAULT 0,
  next_attempt_at TEXT NOT NULL,   -- of the webhook
  is_set_aside    INTEGER NOT NULL DEFAULT 0 CHECK (is_set_aside IN (0, 1)),  -- 1: refused again and again; those behind it go first
  last_error      TEXT,
  delivered_at    TEXT,            -- the webhook has had it taken
  verdict         TEXT CHECK (verdict IN ('accepted', 'rejected')),
  code            TEXT CHECK (length(code) BETWEEN 1 AND 64),  -- the backend's own
  detail          TEXT CHECK (length(detail) <= 500),
  decided_at      TEXT,            -- kept by a trigger
  UNIQUE (merchant_id, id)
) STRICT;
CREATE INDEX operation_inbox_waiting ON operation_inbox (merchant_id, branch_id, n) WHERE verdict IS NULL;
CREATE INDEX operation_inbox_undelivered ON operation_inbox (is_set_aside, merchant_id, branch_id, n) WHERE verdict IS NULL AND delivered_at IS NULL;
CREATE INDEX operation_inbox_decided ON operation_inbox (decided_at) WHERE decided_at IS NOT NULL;

-- A verdict counts once, and with it its effect: what was accepted is named in the next commit of its branch, as if an event had named it; what was rejected
-- becomes a dead letter, its receipt goes, and the same commit names it, so that its till asks what became of it.
CREATE TRIGGER operation_inbox_once BEFORE UPDATE OF verdict, code, detail ON operation_inbox
WHEN OLD.verdict IS NOT NULL AND (NEW.verdict IS NOT OLD.verdict OR NEW.code IS NOT OLD.code OR NEW.detail IS NOT OLD.detail) BEGIN
  SELECT RAISE(ABORT, 'a verdict counts once: this operation has one');
END;
CREATE TRIGGER operation_inbox_key BEFORE UPDATE OF merchant_id, branch_id, id, device_id, journal_id, device_seq, type, body ON operation_inbox BEGIN
  SELECT RAISE(ABORT, 'only verdict, code and detail are yours to set');
END;
CREATE TRIGGER operation_inbox_kept BEFORE DELETE ON operation_inbox WHEN OLD.verdict IS NULL BEGIN
  SELECT RAISE(ABORT, 'this operation waits for its verdict');
END;
CREATE TRIGGER operation_inbox_decide AFTER UPDATE OF verdict ON operation_inbox WHEN OLD.verdict IS NULL AND NEW.verdict IS NOT NULL BEGIN
  UPDATE operation_inbox SET decided_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE n = NEW.n AND decided_at IS NULL;
  UPDATE operation SET awaits_event = 0,
    status = CASE NEW.verdict WHEN 'rejected' THEN 'rejected' ELSE status END,
    code = CASE NEW.verdict WHEN 'rejected' THEN 'refused_by_backend' END,
    detail = CASE WHEN NEW.verdict = 'accepted' THEN NULL WHEN NEW.code IS NULL THEN coalesce(NEW.detail, 'no reason given')
      ELSE 'backend:' || NEW.code || coalesce(': ' || NEW.detail, '') END
   WHERE merchant_id = NEW.merchant_id AND id = NEW.id AND awaits_event = 1;
  DELETE FROM transactions WHERE NEW.verdict = 'rejected' AND merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id;
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('operation', NEW.merchant_id, NEW.branch_id, NEW.id);
END;

-- What a backend rejected is named by a commit, too.
DROP INDEX operation_by_commit;
CREATE INDEX operation_by_commit ON operation (merchant_id, branch_id, device_id, seq) WHERE seq IS NOT NULL;
