-- Capture: triggers leave marks for whoever sequences. Plain SQL only: an application-defined function would make other programs' writes fail.
-- A mark says that a row may have changed, nothing more; the sequencer reads the row as it is. Branch '*' means every branch of the merchant.
-- REPLACE evicts rows without firing DELETE triggers: here every table has one unique key, so what it evicts is marked by the row that took its place;
-- stock_move, which has two, refuses.

CREATE TABLE mark (
  n           INTEGER PRIMARY KEY,
  collection  TEXT NOT NULL,
  merchant_id TEXT NOT NULL,
  branch_id   TEXT NOT NULL,
  id          TEXT NOT NULL
) STRICT;
CREATE INDEX mark_by_branch ON mark (merchant_id, branch_id, collection, id);

-- merchant: the currency is part of every product's price.
CREATE TRIGGER merchant_currency AFTER UPDATE OF currency ON merchant WHEN NEW.currency IS NOT OLD.currency BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'product', NEW.merchant_id, '*', id FROM product WHERE merchant_id = NEW.merchant_id;
END;

-- branch: a new one gets the whole catalogue, a removed one loses everything.
CREATE TRIGGER branch_insert AFTER INSERT ON branch BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('branch', NEW.merchant_id, NEW.branch_id, '');
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'product', NEW.merchant_id, NEW.branch_id, id FROM product WHERE merchant_id = NEW.merchant_id;
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'inventory', NEW.merchant_id, NEW.branch_id, id FROM inventory WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id;
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'transaction', NEW.merchant_id, NEW.branch_id, id FROM transactions WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id;
END;
CREATE TRIGGER branch_key AFTER UPDATE OF merchant_id, branch_id ON branch WHEN NEW.merchant_id IS NOT OLD.merchant_id OR NEW.branch_id IS NOT OLD.branch_id BEGIN
  SELECT RAISE(ABORT, 'a branch keeps its name: devices and topics carry it; make a new branch');
END;
CREATE TRIGGER branch_delete AFTER DELETE ON branch BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'product', OLD.merchant_id, OLD.branch_id, id FROM product WHERE merchant_id = OLD.merchant_id;
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'inventory', OLD.merchant_id, OLD.branch_id, id FROM inventory WHERE merchant_id = OLD.merchant_id AND branch_id = OLD.branch_id;
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'transaction', OLD.merchant_id, OLD.branch_id, id FROM transactions WHERE merchant_id = OLD.merchant_id AND branch_id = OLD.branch_id;
END;

-- product
CREATE TRIGGER product_insert AFTER INSERT ON product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', NEW.merchant_id, '*', NEW.id);
END;
CREATE TRIGGER product_update AFTER UPDATE ON product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', NEW.merchant_id, '*', NEW.id);
END;
CREATE TRIGGER product_key AFTER UPDATE OF merchant_id, id ON product WHEN NEW.merchant_id IS NOT OLD.merchant_id OR NEW.id IS NOT OLD.id BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, '*', OLD.id);
END;
CREATE TRIGGER product_delete AFTER DELETE ON product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, '*', OLD.id);
END;
-- A writer that forgets updated_at gets it set.
CREATE TRIGGER product_touch AFTER UPDATE OF sku, barcode, name, category, unit, price_amount, track_stock, is_active ON product
WHEN NEW.updated_at IS OLD.updated_at AND NOT (NEW.sku IS OLD.sku AND NEW.barcode IS OLD.barcode AND NEW.name IS OLD.name AND NEW.category IS OLD.category
  AND NEW.unit IS OLD.unit AND NEW.price_amount IS OLD.price_amount AND NEW.track_stock IS OLD.track_stock AND NEW.is_active IS OLD.is_active) BEGIN
  UPDATE product SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE merchant_id = NEW.merchant_id AND id = NEW.id;
END;

-- recipe: part of the product's row.
CREATE TRIGGER recipe_insert AFTER INSERT ON recipe BEGIN
  UPDATE product SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE merchant_id = NEW.merchant_id AND id = NEW.product_id;
END;
CREATE TRIGGER recipe_update AFTER UPDATE ON recipe BEGIN
  UPDATE product SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE merchant_id = NEW.merchant_id AND id = NEW.product_id;
  UPDATE product SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
   WHERE merchant_id = OLD.merchant_id AND id = OLD.product_id AND (OLD.merchant_id IS NOT NEW.merchant_id OR OLD.product_id IS NOT NEW.product_id);
END;
CREATE TRIGGER recipe_delete AFTER DELETE ON recipe BEGIN
  UPDATE product SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE merchant_id = OLD.merchant_id AND id = OLD.product_id;
END;

-- branch_product: marks, the time of the branch's own price, and the ledger for whoever sets the stock directly.
CREATE TRIGGER branch_product_insert AFTER INSERT ON branch_product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', NEW.merchant_id, NEW.branch_id, NEW.product_id);
END;
CREATE TRIGGER branch_product_update AFTER UPDATE ON branch_product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', NEW.merchant_id, NEW.branch_id, NEW.product_id);
END;
CREATE TRIGGER branch_product_delete AFTER DELETE ON branch_product BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, OLD.branch_id, OLD.product_id);
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT OLD.merchant_id, OLD.branch_id, 'direct-' || lower(hex(randomblob(16))), 'product', OLD.product_id, 'direct', -OLD.ledger_milli, -OLD.ledger_milli, 'row deleted'
   WHERE OLD.ledger_milli <> 0;
END;
CREATE TRIGGER branch_product_price AFTER UPDATE OF price_amount ON branch_product WHEN NEW.price_amount IS NOT OLD.price_amount BEGIN
  UPDATE branch_product SET price_updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.product_id AND NEW.price_updated_at IS OLD.price_updated_at;
END;
CREATE TRIGGER branch_product_direct_insert AFTER INSERT ON branch_product BEGIN
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'product', NEW.product_id, 'direct', d, d, 'row inserted' FROM (
    SELECT NEW.stock_milli - coalesce((SELECT sum(effect_milli) FROM stock_move
      WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND collection = 'product' AND item_id = NEW.product_id), 0) AS d) WHERE d <> 0;
  UPDATE branch_product SET ledger_milli = stock_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.product_id AND ledger_milli <> stock_milli;
END;
CREATE TRIGGER branch_product_direct_update AFTER UPDATE OF stock_milli ON branch_product
WHEN NEW.stock_milli <> NEW.ledger_milli AND NEW.merchant_id IS OLD.merchant_id AND NEW.branch_id IS OLD.branch_id AND NEW.product_id IS OLD.product_id BEGIN
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  VALUES (NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'product', NEW.product_id, 'direct', NEW.stock_milli - NEW.ledger_milli, NEW.stock_milli - NEW.ledger_milli, 'stock set');
  UPDATE branch_product SET ledger_milli = stock_milli WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.product_id;
END;
-- Moved to another branch or product: out there, in here.
CREATE TRIGGER branch_product_key AFTER UPDATE OF merchant_id, branch_id, product_id ON branch_product
WHEN NEW.merchant_id IS NOT OLD.merchant_id OR NEW.branch_id IS NOT OLD.branch_id OR NEW.product_id IS NOT OLD.product_id BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, OLD.branch_id, OLD.product_id);
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT OLD.merchant_id, OLD.branch_id, 'direct-' || lower(hex(randomblob(16))), 'product', OLD.product_id, 'direct', -OLD.ledger_milli, -OLD.ledger_milli, 'row moved away'
   WHERE OLD.ledger_milli <> 0;
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'product', NEW.product_id, 'direct', d, d, 'row moved here' FROM (
    SELECT NEW.stock_milli - coalesce((SELECT sum(effect_milli) FROM stock_move
      WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND collection = 'product' AND item_id = NEW.product_id), 0) AS d) WHERE d <> 0;
  UPDATE branch_product SET ledger_milli = stock_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.product_id AND ledger_milli <> stock_milli;
END;

-- inventory: the same.
CREATE TRIGGER inventory_insert AFTER INSERT ON inventory BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('inventory', NEW.merchant_id, NEW.branch_id, NEW.id);
END;
CREATE TRIGGER inventory_update AFTER UPDATE ON inventory BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('inventory', NEW.merchant_id, NEW.branch_id, NEW.id);
END;
CREATE TRIGGER inventory_delete AFTER DELETE ON inventory BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('inventory', OLD.merchant_id, OLD.branch_id, OLD.id);
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT OLD.merchant_id, OLD.branch_id, 'direct-' || lower(hex(randomblob(16))), 'inventory', OLD.id, 'direct', -OLD.ledger_milli, -OLD.ledger_milli, 'row deleted'
   WHERE OLD.ledger_milli <> 0;
END;
CREATE TRIGGER inventory_touch AFTER UPDATE OF name, unit, reorder_level_milli ON inventory
WHEN NEW.updated_at IS OLD.updated_at AND NOT (NEW.name IS OLD.name AND NEW.unit IS OLD.unit AND NEW.reorder_level_milli IS OLD.reorder_level_milli) BEGIN
  UPDATE inventory SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id;
END;
CREATE TRIGGER inventory_direct_insert AFTER INSERT ON inventory BEGIN
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'inventory', NEW.id, 'direct', d, d, 'row inserted' FROM (
    SELECT NEW.quantity_milli - coalesce((SELECT sum(effect_milli) FROM stock_move
      WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND collection = 'inventory' AND item_id = NEW.id), 0) AS d) WHERE d <> 0;
  UPDATE inventory SET ledger_milli = quantity_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id AND ledger_milli <> quantity_milli;
END;
CREATE TRIGGER inventory_direct_update AFTER UPDATE OF quantity_milli ON inventory
WHEN NEW.quantity_milli <> NEW.ledger_milli AND NEW.merchant_id IS OLD.merchant_id AND NEW.branch_id IS OLD.branch_id AND NEW.id IS OLD.id BEGIN
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  VALUES (NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'inventory', NEW.id, 'direct', NEW.quantity_milli - NEW.ledger_milli, NEW.quantity_milli - NEW.ledger_milli, 'quantity set');
  UPDATE inventory SET ledger_milli = quantity_milli WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id;
END;
CREATE TRIGGER inventory_key AFTER UPDATE OF merchant_id, branch_id, id ON inventory
WHEN NEW.merchant_id IS NOT OLD.merchant_id OR NEW.branch_id IS NOT OLD.branch_id OR NEW.id IS NOT OLD.id BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('inventory', OLD.merchant_id, OLD.branch_id, OLD.id);
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT OLD.merchant_id, OLD.branch_id, 'direct-' || lower(hex(randomblob(16))), 'inventory', OLD.id, 'direct', -OLD.ledger_milli, -OLD.ledger_milli, 'row moved away'
   WHERE OLD.ledger_milli <> 0;
  INSERT INTO stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
  SELECT NEW.merchant_id, NEW.branch_id, 'direct-' || lower(hex(randomblob(16))), 'inventory', NEW.id, 'direct', d, d, 'row moved here' FROM (
    SELECT NEW.quantity_milli - coalesce((SELECT sum(effect_milli) FROM stock_move
      WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND collection = 'inventory' AND item_id = NEW.id), 0) AS d) WHERE d <> 0;
  UPDATE inventory SET ledger_milli = quantity_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id AND ledger_milli <> quantity_milli;
END;

-- transactions
CREATE TRIGGER transactions_insert AFTER INSERT ON transactions BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('transaction', NEW.merchant_id, NEW.branch_id, NEW.id);
END;
CREATE TRIGGER transactions_update AFTER UPDATE ON transactions BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('transaction', NEW.merchant_id, NEW.branch_id, NEW.id);
END;
CREATE TRIGGER transactions_key AFTER UPDATE OF merchant_id, branch_id, id ON transactions
WHEN NEW.merchant_id IS NOT OLD.merchant_id OR NEW.branch_id IS NOT OLD.branch_id OR NEW.id IS NOT OLD.id BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('transaction', OLD.merchant_id, OLD.branch_id, OLD.id);
END;
CREATE TRIGGER transactions_delete AFTER DELETE ON transactions BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) VALUES ('transaction', OLD.merchant_id, OLD.branch_id, OLD.id);
END;
-- REPLACE may name a rowid and so evict a receipt of another key: mark that one before it goes.
CREATE TRIGGER transactions_evict BEFORE INSERT ON transactions WHEN NEW.rowid > 0 BEGIN
  INSERT INTO mark (collection, merchant_id, branch_id, id) SELECT 'transaction', merchant_id, branch_id, id FROM transactions WHERE rowid = NEW.rowid;
END;

-- The ledger moves the stock, and only grows.
CREATE TRIGGER stock_move_row BEFORE INSERT ON stock_move WHEN NEW.collection = 'product' AND NEW.kind <> 'direct' BEGIN
  INSERT INTO branch_product (merchant_id, branch_id, product_id) SELECT NEW.merchant_id, NEW.branch_id, NEW.item_id
   WHERE NOT EXISTS (SELECT 1 FROM branch_product WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.item_id);
END;
CREATE TRIGGER stock_move_product AFTER INSERT ON stock_move WHEN NEW.collection = 'product' AND NEW.kind <> 'direct' BEGIN
  UPDATE branch_product SET stock_milli = stock_milli + NEW.effect_milli, ledger_milli = ledger_milli + NEW.effect_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.item_id;
END;
CREATE TRIGGER stock_move_inventory AFTER INSERT ON stock_move WHEN NEW.collection = 'inventory' AND NEW.kind <> 'direct' BEGIN
  SELECT RAISE(ABORT, 'no such inventory item at this branch') WHERE NOT EXISTS
    (SELECT 1 FROM inventory WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.item_id);
  UPDATE inventory SET quantity_milli = quantity_milli + NEW.effect_milli, ledger_milli = ledger_milli + NEW.effect_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.item_id;
END;
CREATE TRIGGER stock_move_once BEFORE INSERT ON stock_move
WHEN EXISTS (SELECT 1 FROM stock_move WHERE merchant_id = NEW.merchant_id AND id = NEW.id) OR EXISTS (SELECT 1 FROM stock_move WHERE n = NEW.n) BEGIN
  SELECT RAISE(ABORT, 'this movement is in the ledger already; the ledger only grows');
END;
CREATE TRIGGER stock_move_update BEFORE UPDATE ON stock_move BEGIN
  SELECT RAISE(ABORT, 'the ledger only grows: insert a movement that corrects this one');
END;
CREATE TRIGGER stock_move_delete BEFORE DELETE ON stock_move BEGIN
  SELECT RAISE(ABORT, 'the ledger only grows: insert a movement that corrects this one');
END;
