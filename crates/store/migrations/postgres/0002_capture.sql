-- Capture: triggers leave marks for whoever sequences. A mark says that a row may have changed, nothing more; the sequencer reads the row as it is.
-- Branch '*' means every branch of the merchant; such a mark stays until each of them was visited.
--
-- Triggers work once per statement, on its transition tables; only what must know a row before and after (a changed key, a forgotten time) is per row, and
-- its WHEN keeps it from being called otherwise. They run as the owner of the schema (SECURITY DEFINER), so a writer needs no right on `mark`, and always
-- (ENABLE ALWAYS), also under session_replication_role = replica. No sequence and no unique key: writers never wait for each other here.

-- xid: the writer's transaction. The sequencer looks only at transactions that its last snapshot had not seen the end of, so deleted marks that an old
-- snapshot keeps from being vacuumed cost it nothing.
CREATE TABLE mstore.mark (
  collection  text COLLATE "C" NOT NULL,
  merchant_id text COLLATE "C" NOT NULL,
  branch_id   text COLLATE "C" NOT NULL,
  id          text COLLATE "C" NOT NULL,
  xid         xid8 NOT NULL DEFAULT pg_current_xact_id()
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX mark_by_xid ON mstore.mark (xid);
CREATE INDEX mark_of_merchant ON mstore.mark (merchant_id, xid) WHERE branch_id = '*';

-- merchant: the currency is part of every product's price, and without the merchant there are no products.
CREATE FUNCTION mstore.merchant_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', p.merchant_id, '*', p.id
      FROM new_rows n JOIN mstore.product p ON p.merchant_id = n.merchant_id
     WHERE NOT EXISTS (SELECT FROM old_rows o WHERE o.merchant_id = n.merchant_id AND o.currency = n.currency);
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', p.merchant_id, '*', p.id
      FROM old_rows o JOIN mstore.product p ON p.merchant_id = o.merchant_id
     WHERE NOT EXISTS (SELECT FROM new_rows n WHERE n.merchant_id = o.merchant_id);
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', p.merchant_id, '*', p.id FROM new_rows n JOIN mstore.product p ON p.merchant_id = n.merchant_id;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', p.merchant_id, '*', p.id FROM old_rows o JOIN mstore.product p ON p.merchant_id = o.merchant_id;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, '*', id FROM mstore.product;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER merchant_insert AFTER INSERT ON mstore.merchant REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.merchant_changed();

CREATE TRIGGER merchant_update AFTER UPDATE ON mstore.merchant REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.merchant_changed();

CREATE TRIGGER merchant_delete AFTER DELETE ON mstore.merchant REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.merchant_changed();

CREATE TRIGGER merchant_truncate AFTER TRUNCATE ON mstore.merchant FOR EACH STATEMENT EXECUTE FUNCTION mstore.merchant_changed();


-- branch: a new one gets everything, a removed one loses everything.
CREATE FUNCTION mstore.branch_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)
      SELECT 'branch', b.merchant_id, b.branch_id, '' FROM new_rows b
      UNION ALL SELECT 'product', b.merchant_id, b.branch_id, p.id FROM new_rows b JOIN mstore.product p ON p.merchant_id = b.merchant_id
      UNION ALL SELECT 'inventory', b.merchant_id, b.branch_id, i.id FROM new_rows b
        JOIN mstore.inventory i ON i.merchant_id = b.merchant_id AND i.branch_id = b.branch_id
      UNION ALL SELECT 'transaction', b.merchant_id, b.branch_id, t.id FROM new_rows b
        JOIN mstore.transactions t ON t.merchant_id = b.merchant_id AND t.branch_id = b.branch_id;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)
      SELECT 'branch', b.merchant_id, b.branch_id, '' FROM old_rows b
      UNION ALL SELECT 'product', b.merchant_id, b.branch_id, p.id FROM old_rows b JOIN mstore.product p ON p.merchant_id = b.merchant_id
      UNION ALL SELECT 'inventory', b.merchant_id, b.branch_id, i.id FROM old_rows b
        JOIN mstore.inventory i ON i.merchant_id = b.merchant_id AND i.branch_id = b.branch_id
      UNION ALL SELECT 'transaction', b.merchant_id, b.branch_id, t.id FROM old_rows b
        JOIN mstore.transactions t ON t.merchant_id = b.merchant_id AND t.branch_id = b.branch_id;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id)
      SELECT 'branch', b.merchant_id, b.branch_id, '' FROM mstore.branch b
      UNION ALL SELECT 'product', b.merchant_id, b.branch_id, p.id FROM mstore.branch b JOIN mstore.product p ON p.merchant_id = b.merchant_id
      UNION ALL SELECT 'inventory', b.merchant_id, b.branch_id, i.id FROM mstore.branch b
        JOIN mstore.inventory i ON i.merchant_id = b.merchant_id AND i.branch_id = b.branch_id
      UNION ALL SELECT 'transaction', b.merchant_id, b.branch_id, t.id FROM mstore.branch b
        JOIN mstore.transactions t ON t.merchant_id = b.merchant_id AND t.branch_id = b.branch_id;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER branch_insert AFTER INSERT ON mstore.branch REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_changed();

CREATE TRIGGER branch_delete AFTER DELETE ON mstore.branch REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_changed();

CREATE TRIGGER branch_truncate BEFORE TRUNCATE ON mstore.branch FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_changed();

CREATE FUNCTION mstore.branch_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'a branch keeps its name: devices and topics carry it; make a new branch';
END
$$;

CREATE TRIGGER branch_key BEFORE UPDATE OF merchant_id, branch_id ON mstore.branch FOR EACH ROW
  WHEN ((NEW.merchant_id, NEW.branch_id) IS DISTINCT FROM (OLD.merchant_id, OLD.branch_id)) EXECUTE FUNCTION mstore.branch_key();


-- product
CREATE FUNCTION mstore.product_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, '*', id FROM old_rows;
  ELSIF TG_OP = 'TRUNCATE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, '*', id FROM mstore.product;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, '*', id FROM new_rows;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER product_insert AFTER INSERT ON mstore.product REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.product_changed();

CREATE TRIGGER product_update AFTER UPDATE ON mstore.product REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.product_changed();

CREATE TRIGGER product_delete AFTER DELETE ON mstore.product REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.product_changed();

CREATE TRIGGER product_truncate BEFORE TRUNCATE ON mstore.product FOR EACH STATEMENT EXECUTE FUNCTION mstore.product_changed();

CREATE FUNCTION mstore.product_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, '*', OLD.id);
  RETURN NULL;
END
$$;

CREATE TRIGGER product_key AFTER UPDATE OF merchant_id, id ON mstore.product FOR EACH ROW
  WHEN ((NEW.merchant_id, NEW.id) IS DISTINCT FROM (OLD.merchant_id, OLD.id)) EXECUTE FUNCTION mstore.product_key();

-- A writer that forgets updated_at gets it set.
CREATE FUNCTION mstore.touch_updated_at() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  NEW.updated_at := mstore.utc_now();
  RETURN NEW;
END
$$;

CREATE TRIGGER product_touch BEFORE UPDATE OF sku, barcode, name, category, unit, price_amount, track_stock, is_active ON mstore.product FOR EACH ROW
  WHEN (NEW.updated_at = OLD.updated_at AND (NEW.sku, NEW.barcode, NEW.name, NEW.category, NEW.unit, NEW.price_amount, NEW.track_stock, NEW.is_active)
    IS DISTINCT FROM (OLD.sku, OLD.barcode, OLD.name, OLD.category, OLD.unit, OLD.price_amount, OLD.track_stock, OLD.is_active)) EXECUTE FUNCTION mstore.touch_updated_at();


-- recipe: part of the product's row.
CREATE FUNCTION mstore.recipe_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE mstore.product p SET updated_at = mstore.utc_now() FROM (SELECT DISTINCT merchant_id, product_id FROM new_rows) r
     WHERE p.merchant_id = r.merchant_id AND p.id = r.product_id;
  ELSIF TG_OP = 'UPDATE' THEN
    UPDATE mstore.product p SET updated_at = mstore.utc_now()
      FROM (SELECT merchant_id, product_id FROM new_rows UNION SELECT merchant_id, product_id FROM old_rows) r
     WHERE p.merchant_id = r.merchant_id AND p.id = r.product_id;
  ELSIF TG_OP = 'DELETE' THEN
    UPDATE mstore.product p SET updated_at = mstore.utc_now() FROM (SELECT DISTINCT merchant_id, product_id FROM old_rows) r
     WHERE p.merchant_id = r.merchant_id AND p.id = r.product_id;
  ELSE
    UPDATE mstore.product p SET updated_at = mstore.utc_now() FROM (SELECT DISTINCT merchant_id, product_id FROM mstore.recipe) r
     WHERE p.merchant_id = r.merchant_id AND p.id = r.product_id;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER recipe_insert AFTER INSERT ON mstore.recipe REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.recipe_changed();

CREATE TRIGGER recipe_update AFTER UPDATE ON mstore.recipe REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.recipe_changed();

CREATE TRIGGER recipe_delete AFTER DELETE ON mstore.recipe REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.recipe_changed();

CREATE TRIGGER recipe_truncate BEFORE TRUNCATE ON mstore.recipe FOR EACH STATEMENT EXECUTE FUNCTION mstore.recipe_changed();


-- The stock of branch_product and inventory is the sum of the ledger. Whoever sets it directly gets a movement of kind `direct` written for it: the difference
-- between what stands in the row and the ledger, as they are after the statement.
CREATE FUNCTION mstore.direct_move(merchant text, branch text, target text, item text, effect bigint, why text) RETURNS void LANGUAGE sql AS
$$ INSERT INTO mstore.stock_move (merchant_id, branch_id, id, collection, item_id, kind, quantity_milli, effect_milli, reason)
   VALUES (merchant, branch, 'direct-' || pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''), target, item, 'direct', effect, effect, why) $$;


-- branch_product: marks, and the ledger for whoever sets the stock directly.
CREATE FUNCTION mstore.branch_product_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, branch_id, product_id FROM new_rows;
    IF EXISTS (SELECT FROM new_rows WHERE stock_milli <> ledger_milli) THEN
      PERFORM mstore.direct_move(s.merchant_id, s.branch_id, 'product', s.product_id, s.stock_milli - s.ledger_milli, 'stock set')
         FROM mstore.branch_product s WHERE s.stock_milli <> s.ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.product_id = s.product_id);
      UPDATE mstore.branch_product s SET ledger_milli = stock_milli
       WHERE stock_milli <> ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.product_id = s.product_id);
    END IF;
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, branch_id, product_id FROM new_rows;
    PERFORM mstore.direct_move(d.merchant_id, d.branch_id, 'product', d.product_id, d.effect, 'row inserted') FROM (
      SELECT s.merchant_id, s.branch_id, s.product_id, s.stock_milli - coalesce((SELECT sum(m.effect_milli) FROM mstore.stock_move m WHERE m.merchant_id = s.merchant_id AND m.branch_id = s.branch_id
             AND m.collection = 'product' AND m.item_id = s.product_id), 0)::bigint AS effect FROM new_rows s) d WHERE d.effect <> 0;
    IF EXISTS (SELECT FROM new_rows WHERE stock_milli <> ledger_milli) THEN
      UPDATE mstore.branch_product s SET ledger_milli = stock_milli
       WHERE stock_milli <> ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.product_id = s.product_id);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, branch_id, product_id FROM old_rows;
    PERFORM mstore.direct_move(merchant_id, branch_id, 'product', product_id, -ledger_milli, 'row deleted') FROM old_rows WHERE ledger_milli <> 0;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'product', merchant_id, branch_id, product_id FROM mstore.branch_product;
    PERFORM mstore.direct_move(merchant_id, branch_id, 'product', product_id, -ledger_milli, 'table truncated') FROM mstore.branch_product WHERE ledger_milli <> 0;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER branch_product_insert AFTER INSERT ON mstore.branch_product REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_product_changed();

CREATE TRIGGER branch_product_update AFTER UPDATE ON mstore.branch_product REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_product_changed();

CREATE TRIGGER branch_product_delete AFTER DELETE ON mstore.branch_product REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_product_changed();

CREATE TRIGGER branch_product_truncate BEFORE TRUNCATE ON mstore.branch_product FOR EACH STATEMENT EXECUTE FUNCTION mstore.branch_product_changed();

-- Moved to another branch or item: out there, in here.
CREATE FUNCTION mstore.branch_product_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) VALUES ('product', OLD.merchant_id, OLD.branch_id, OLD.product_id);
  IF OLD.ledger_milli <> 0 THEN
    PERFORM mstore.direct_move(OLD.merchant_id, OLD.branch_id, 'product', OLD.product_id, -OLD.ledger_milli, 'row moved away');
  END IF;
  PERFORM mstore.direct_move(d.merchant_id, d.branch_id, 'product', d.product_id, d.effect, 'row moved here') FROM (
    SELECT s.merchant_id, s.branch_id, s.product_id, s.stock_milli - coalesce((SELECT sum(m.effect_milli) FROM mstore.stock_move m WHERE m.merchant_id = s.merchant_id AND m.branch_id = s.branch_id
             AND m.collection = 'product' AND m.item_id = s.product_id), 0)::bigint AS effect FROM mstore.branch_product s
     WHERE s.merchant_id = NEW.merchant_id AND s.branch_id = NEW.branch_id AND s.product_id = NEW.product_id) d WHERE d.effect <> 0;
  UPDATE mstore.branch_product SET ledger_milli = stock_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND product_id = NEW.product_id AND ledger_milli <> stock_milli;
  RETURN NULL;
END
$$;

CREATE TRIGGER branch_product_key AFTER UPDATE OF merchant_id, branch_id, product_id ON mstore.branch_product FOR EACH ROW
  WHEN ((NEW.merchant_id, NEW.branch_id, NEW.product_id) IS DISTINCT FROM (OLD.merchant_id, OLD.branch_id, OLD.product_id)) EXECUTE FUNCTION mstore.branch_product_key();

-- The time of the branch's own price.
CREATE FUNCTION mstore.touch_price() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  NEW.price_updated_at := mstore.utc_now();
  RETURN NEW;
END
$$;

CREATE TRIGGER branch_product_price BEFORE UPDATE OF price_amount ON mstore.branch_product FOR EACH ROW
  WHEN (NEW.price_amount IS DISTINCT FROM OLD.price_amount AND NEW.price_updated_at IS NOT DISTINCT FROM OLD.price_updated_at) EXECUTE FUNCTION mstore.touch_price();


-- inventory: marks, and the ledger for whoever sets the stock directly.
CREATE FUNCTION mstore.inventory_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'inventory', merchant_id, branch_id, id FROM new_rows;
    IF EXISTS (SELECT FROM new_rows WHERE quantity_milli <> ledger_milli) THEN
      PERFORM mstore.direct_move(s.merchant_id, s.branch_id, 'inventory', s.id, s.quantity_milli - s.ledger_milli, 'quantity set')
         FROM mstore.inventory s WHERE s.quantity_milli <> s.ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.id = s.id);
      UPDATE mstore.inventory s SET ledger_milli = quantity_milli
       WHERE quantity_milli <> ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.id = s.id);
    END IF;
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'inventory', merchant_id, branch_id, id FROM new_rows;
    PERFORM mstore.direct_move(d.merchant_id, d.branch_id, 'inventory', d.id, d.effect, 'row inserted') FROM (
      SELECT s.merchant_id, s.branch_id, s.id, s.quantity_milli - coalesce((SELECT sum(m.effect_milli) FROM mstore.stock_move m WHERE m.merchant_id = s.merchant_id AND m.branch_id = s.branch_id
             AND m.collection = 'inventory' AND m.item_id = s.id), 0)::bigint AS effect FROM new_rows s) d WHERE d.effect <> 0;
    IF EXISTS (SELECT FROM new_rows WHERE quantity_milli <> ledger_milli) THEN
      UPDATE mstore.inventory s SET ledger_milli = quantity_milli
       WHERE quantity_milli <> ledger_milli AND EXISTS (SELECT FROM new_rows r WHERE r.merchant_id = s.merchant_id AND r.branch_id = s.branch_id AND r.id = s.id);
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'inventory', merchant_id, branch_id, id FROM old_rows;
    PERFORM mstore.direct_move(merchant_id, branch_id, 'inventory', id, -ledger_milli, 'row deleted') FROM old_rows WHERE ledger_milli <> 0;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'inventory', merchant_id, branch_id, id FROM mstore.inventory;
    PERFORM mstore.direct_move(merchant_id, branch_id, 'inventory', id, -ledger_milli, 'table truncated') FROM mstore.inventory WHERE ledger_milli <> 0;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER inventory_insert AFTER INSERT ON mstore.inventory REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.inventory_changed();

CREATE TRIGGER inventory_update AFTER UPDATE ON mstore.inventory REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.inventory_changed();

CREATE TRIGGER inventory_delete AFTER DELETE ON mstore.inventory REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.inventory_changed();

CREATE TRIGGER inventory_truncate BEFORE TRUNCATE ON mstore.inventory FOR EACH STATEMENT EXECUTE FUNCTION mstore.inventory_changed();

-- Moved to another branch or item: out there, in here.
CREATE FUNCTION mstore.inventory_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) VALUES ('inventory', OLD.merchant_id, OLD.branch_id, OLD.id);
  IF OLD.ledger_milli <> 0 THEN
    PERFORM mstore.direct_move(OLD.merchant_id, OLD.branch_id, 'inventory', OLD.id, -OLD.ledger_milli, 'row moved away');
  END IF;
  PERFORM mstore.direct_move(d.merchant_id, d.branch_id, 'inventory', d.id, d.effect, 'row moved here') FROM (
    SELECT s.merchant_id, s.branch_id, s.id, s.quantity_milli - coalesce((SELECT sum(m.effect_milli) FROM mstore.stock_move m WHERE m.merchant_id = s.merchant_id AND m.branch_id = s.branch_id
             AND m.collection = 'inventory' AND m.item_id = s.id), 0)::bigint AS effect FROM mstore.inventory s
     WHERE s.merchant_id = NEW.merchant_id AND s.branch_id = NEW.branch_id AND s.id = NEW.id) d WHERE d.effect <> 0;
  UPDATE mstore.inventory SET ledger_milli = quantity_milli
   WHERE merchant_id = NEW.merchant_id AND branch_id = NEW.branch_id AND id = NEW.id AND ledger_milli <> quantity_milli;
  RETURN NULL;
END
$$;

CREATE TRIGGER inventory_key AFTER UPDATE OF merchant_id, branch_id, id ON mstore.inventory FOR EACH ROW
  WHEN ((NEW.merchant_id, NEW.branch_id, NEW.id) IS DISTINCT FROM (OLD.merchant_id, OLD.branch_id, OLD.id)) EXECUTE FUNCTION mstore.inventory_key();

CREATE TRIGGER inventory_touch BEFORE UPDATE OF name, unit, reorder_level_milli ON mstore.inventory FOR EACH ROW
  WHEN (NEW.updated_at = OLD.updated_at AND (NEW.name, NEW.unit, NEW.reorder_level_milli) IS DISTINCT FROM (OLD.name, OLD.unit, OLD.reorder_level_milli)) EXECUTE FUNCTION mstore.touch_updated_at();


-- transactions
CREATE FUNCTION mstore.transactions_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'transaction', merchant_id, branch_id, id FROM old_rows;
  ELSIF TG_OP = 'TRUNCATE' THEN
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'transaction', merchant_id, branch_id, id FROM mstore.transactions;
  ELSE
    INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) SELECT 'transaction', merchant_id, branch_id, id FROM new_rows;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER transactions_insert AFTER INSERT ON mstore.transactions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.transactions_changed();

CREATE TRIGGER transactions_update AFTER UPDATE ON mstore.transactions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.transactions_changed();

CREATE TRIGGER transactions_delete AFTER DELETE ON mstore.transactions REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.transactions_changed();

CREATE TRIGGER transactions_truncate BEFORE TRUNCATE ON mstore.transactions FOR EACH STATEMENT EXECUTE FUNCTION mstore.transactions_changed();

CREATE FUNCTION mstore.transactions_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) VALUES ('transaction', OLD.merchant_id, OLD.branch_id, OLD.id);
  RETURN NULL;
END
$$;

CREATE TRIGGER transactions_key AFTER UPDATE OF merchant_id, branch_id, id ON mstore.transactions FOR EACH ROW
  WHEN ((NEW.merchant_id, NEW.branch_id, NEW.id) IS DISTINCT FROM (OLD.merchant_id, OLD.branch_id, OLD.id)) EXECUTE FUNCTION mstore.transactions_key();


-- The ledger moves the stock, and only grows. Rows are locked in the order of their keys, so two writers never wait for each other in a ring.
CREATE FUNCTION mstore.stock_moved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM new_rows WHERE collection = 'product' AND kind <> 'direct') THEN
    INSERT INTO mstore.branch_product (merchant_id, branch_id, product_id, stock_milli, ledger_milli)
      SELECT merchant_id, branch_id, item_id, sum(effect_milli), sum(effect_milli) FROM new_rows WHERE collection = 'product' AND kind <> 'direct'
       GROUP BY merchant_id, branch_id, item_id ORDER BY merchant_id, branch_id, item_id
      ON CONFLICT (merchant_id, branch_id, product_id) DO UPDATE
      SET stock_milli = branch_product.stock_milli + excluded.stock_milli, ledger_milli = branch_product.ledger_milli + excluded.ledger_milli;
  END IF;
  IF EXISTS (SELECT FROM new_rows WHERE collection = 'inventory' AND kind <> 'direct') THEN
    PERFORM FROM mstore.inventory i
      WHERE EXISTS (SELECT FROM new_rows n WHERE n.collection = 'inventory' AND n.kind <> 'direct'
        AND n.merchant_id = i.merchant_id AND n.branch_id = i.branch_id AND n.item_id = i.id)
      ORDER BY i.merchant_id, i.branch_id, i.id FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM new_rows n WHERE n.collection = 'inventory' AND n.kind <> 'direct' AND NOT EXISTS
      (SELECT FROM mstore.inventory i WHERE i.merchant_id = n.merchant_id AND i.branch_id = n.branch_id AND i.id = n.item_id)) THEN
      RAISE EXCEPTION 'no such inventory item at this branch';
    END IF;
    UPDATE mstore.inventory i SET quantity_milli = i.quantity_milli + e.effect, ledger_milli = i.ledger_milli + e.effect
      FROM (SELECT merchant_id, branch_id, item_id, sum(effect_milli)::bigint AS effect FROM new_rows
             WHERE collection = 'inventory' AND kind <> 'direct' GROUP BY merchant_id, branch_id, item_id) e
     WHERE i.merchant_id = e.merchant_id AND i.branch_id = e.branch_id AND i.id = e.item_id;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER stock_moved AFTER INSERT ON mstore.stock_move REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mstore.stock_moved();

CREATE FUNCTION mstore.stock_move_kept() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, mstore, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'the ledger only grows: insert a movement that corrects this one';
END
$$;

CREATE TRIGGER stock_move_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON mstore.stock_move FOR EACH STATEMENT EXECUTE FUNCTION mstore.stock_move_kept();


-- Also for writers that say they are a replica.
DO $$
DECLARE t record;
BEGIN
  FOR t IN SELECT c.relname, g.tgname FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
    WHERE c.relnamespace = 'mstore'::regnamespace AND NOT g.tgisinternal LOOP
    EXECUTE format('ALTER TABLE mstore.%I ENABLE ALWAYS TRIGGER %I', t.relname, t.tgname);
  END LOOP;
END $$;
