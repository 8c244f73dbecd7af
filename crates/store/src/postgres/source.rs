//! Reads rows of the source tables as devices see them, many at once.

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::future::{try_join, try_join3};
use mstore_protocol::{BranchKey, PersonalData};
use tokio_postgres::{Error, Row};

use super::attach::{Live, Read};
use crate::source_row::{Item, Product, SourceRow, transaction};

/// A connection or a transaction of the pool, and what the database's own library calls it.
pub(super) trait Reader: GenericClient {
    /// Without the cache of statements.
    fn plain(&self) -> &(impl tokio_postgres::GenericClient + Sync);
}

impl Reader for Object {
    fn plain(&self) -> &(impl tokio_postgres::GenericClient + Sync) {
        &***self
    }
}

impl Reader for Transaction<'_> {
    fn plain(&self) -> &(impl tokio_postgres::GenericClient + Sync) {
        &**self
    }
}

/// A row that somebody wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Whose.
    pub(super) key: &'a BranchKey,
    /// Of which collection.
    pub(super) collection: &'a str,
    /// Its id.
    pub(super) id: &'a str,
}

// Each row is looked up by its whole key: a plain join would be planned on the empty tables of a new server to read all rows of the branch for each, and stay
// so. OFFSET 0 keeps the planner from making one of it.
const PRODUCTS: &str = "SELECT k.i, p.sku, p.barcode, p.name, p.category, p.unit, coalesce(bp.price_amount, p.price_amount), m.currency,
    coalesce(bp.stock_milli, 0), p.track_stock <> 0, p.is_active <> 0, greatest(p.updated_at, bp.price_updated_at), r.items, r.quantities
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, id, i)
  CROSS JOIN LATERAL (SELECT 1 FROM branch b WHERE b.merchant_id = k.merchant_id AND b.branch_id = k.branch_id OFFSET 0) b
  CROSS JOIN LATERAL (SELECT m.currency FROM merchant m WHERE m.merchant_id = k.merchant_id OFFSET 0) m
  CROSS JOIN LATERAL (SELECT p.* FROM product p WHERE p.merchant_id = k.merchant_id AND p.id = k.id OFFSET 0) p
  LEFT JOIN LATERAL (SELECT s.price_amount, s.price_updated_at, s.stock_milli FROM branch_product s
    WHERE s.merchant_id = k.merchant_id AND s.branch_id = k.branch_id AND s.product_id = k.id OFFSET 0) bp ON true
  LEFT JOIN LATERAL (SELECT array_agg(c.item_id ORDER BY c.item_id) AS items, array_agg(c.quantity_milli ORDER BY c.item_id) AS quantities
    FROM recipe c WHERE c.merchant_id = k.merchant_id AND c.product_id = k.id) r ON true";

const INVENTORY: &str = "SELECT k.i, t.name, t.unit, t.quantity_milli, t.reorder_level_milli, t.updated_at
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, id, i)
  CROSS JOIN LATERAL (SELECT 1 FROM branch b WHERE b.merchant_id = k.merchant_id AND b.branch_id = k.branch_id OFFSET 0) b
  CROSS JOIN LATERAL (SELECT t.* FROM inventory t WHERE t.merchant_id = k.merchant_id AND t.branch_id = k.branch_id AND t.id = k.id OFFSET 0) t";

const TRANSACTIONS: &str = "SELECT k.i, t.body, t.recorded_at >= coalesce((SELECT c.cutoff FROM transaction_cutoff c WHERE c.merchant_id = k.merchant_id),
    (SELECT value FROM setting WHERE name = 'transaction_cutoff'))
  FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (merchant_id, branch_id, id, i)
  CROSS JOIN LATERAL (SELECT 1 FROM branch b WHERE b.merchant_id = k.merchant_id AND b.branch_id = k.branch_id OFFSET 0) b
  CROSS JOIN LATERAL (SELECT t.* FROM transactions t WHERE t.merchant_id = k.merchant_id AND t.branch_id = k.branch_id AND t.id = k.id OFFSET 0) t";

/// The rows, one for each that is wanted: of our own tables, or of those that are attached. What is attached is read in the caller's transaction, and alone in it:
/// a statement of somebody else between ([`is_joinable`]) would be undone when a table of others cannot be read.
pub(super) async fn rows<C: Reader>(client: &C, attached: &Live, wanted: &[Wanted<'_>]) -> Result<Vec<SourceRow>, Error> {
    if is_joinable(attached, wanted) {
        let (found, is_fresh) = try_join(own(client, attached.personal_data(), wanted), attached.is_fresh(client)).await?;
        if is_fresh {
            return Ok(found);
        }
    }
    let asked: Vec<_> = wanted.iter().map(|wanted| (wanted.key, wanted.collection, wanted.id)).collect();
    let read = attached.read(client.plain(), &asked).await?;
    let is_own = |at: &usize| matches!(read[*at], Read::Own);
    let owned: Vec<usize> = (0..wanted.len()).filter(is_own).collect();
    let of_own: Vec<Wanted<'_>> = owned.iter().map(|at| wanted[*at]).collect();
    let mut found: Vec<SourceRow> = read.into_iter().map(Read::row).collect();
    for (at, row) in owned.into_iter().zip(own(client, attached.personal_data(), &of_own).await?) {
        found[at] = row;
    }
    Ok(found)
}

/// Whether none of these rows is of an attached table, as far as is known.
pub(super) fn is_joinable(attached: &Live, wanted: &[Wanted<'_>]) -> bool {
    wanted.iter().all(|wanted| attached.is_own(wanted.collection))
}

/// Rows of our own tables.
async fn own<C: GenericClient>(client: &C, personal: &PersonalData, wanted: &[Wanted<'_>]) -> Result<Vec<SourceRow>, Error> {
    let mut found = vec![SourceRow::Gone; wanted.len()];
    let mut put = |places: &[usize], rows: &[Row], read: fn(&Row, &str) -> SourceRow| {
        for row in rows {
            let at = places[place(row)];
            found[at] = read(row, wanted[at].id).screened(personal);
        }
    };
    let (products, inventory, transactions) = (of("product", wanted), of("inventory", wanted), of("transaction", wanted));
    let (of_products, of_inventory, of_transactions) = try_join3(
        query(client, PRODUCTS, wanted, &products),
        query(client, INVENTORY, wanted, &inventory),
        query(client, TRANSACTIONS, wanted, &transactions),
    )
    .await?;
    put(&products, &of_products, product);
    put(&inventory, &of_inventory, item);
    put(&transactions, &of_transactions, receipt);
    Ok(found)
}

fn of(collection: &str, wanted: &[Wanted<'_>]) -> Vec<usize> {
    (0..wanted.len()).filter(|i| wanted[*i].collection == collection).collect()
}

async fn query<C: GenericClient>(client: &C, sql: &str, wanted: &[Wanted<'_>], places: &[usize]) -> Result<Vec<Row>, Error> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let merchants: Vec<&str> = places.iter().map(|i| wanted[*i].key.merchant.as_str()).collect();
    let branches: Vec<&str> = places.iter().map(|i| wanted[*i].key.branch.as_str()).collect();
    let ids: Vec<&str> = places.iter().map(|i| wanted[*i].id).collect();
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[&merchants, &branches, &ids]).await
}

/// The first column is the place in the arrays, counted from 1.
pub(super) fn place(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).expect("ordinality counts from 1")
}

fn product(row: &Row, id: &str) -> SourceRow {
    let (items, quantities): (Option<Vec<String>>, Option<Vec<i64>>) = (row.get(12), row.get(13));
    let product = Product {
        id,
        sku: row.get(1),
        barcode: row.get(2),
        name: row.get(3),
        category: row.get(4),
        unit: row.get(5),
        price_amount: row.get(6),
        currency: row.get(7),
        stock_milli: row.get(8),
        track_stock: row.get(9),
        is_active: row.get(10),
        updated_at: row.get(11),
        recipe: items.into_iter().flatten().zip(quantities.into_iter().flatten()).collect(),
    };
    product.row()
}

fn item(row: &Row, id: &str) -> SourceRow {
    let item = Item {
        id,
        name: row.get(1),
        unit: row.get(2),
        quantity_milli: row.get(3),
        reorder_level_milli: row.get(4),
        updated_at: row.get(5),
    };
    item.row()
}

fn receipt(row: &Row, id: &str) -> SourceRow {
    transaction(id, row.get(1), row.get(2))
}

/// Source rows and something else, asked at once if that can be.
pub(super) async fn with<C: Reader, T>(
    client: &C,
    attached: &Live,
    wanted: &[Wanted<'_>],
    other: impl Future<Output = Result<T, Error>>,
) -> Result<(Vec<SourceRow>, T), Error> {
    if is_joinable(attached, wanted) {
        return try_join(rows(client, attached, wanted), other).await;
    }
    Ok((rows(client, attached, wanted).await?, other.await?))
}
