//! Merchants and branches that attached tables speak of.

use mstore_protocol::BranchKey;
use tokio_postgres::GenericClient;

use super::{
    AttachError, key,
    mapping::{Branches, MerchantMapping},
    name::quoted,
    source::{OWN, Tables},
};

/// Makes a branch unless it is there, and its merchant likewise, after the mapping's own.
pub(super) async fn create(client: &impl GenericClient, key: &BranchKey, name: &str, currency: &str) -> Result<(), AttachError> {
    merchant(client, key.merchant.as_str(), key.merchant.as_str(), currency).await?;
    let sql =
        "INSERT INTO mstore.branch (merchant_id, branch_id, name) VALUES ($1, $2, $3) ON CONFLICT (merchant_id, branch_id) DO NOTHING";
    let is_new = client.execute(sql, &[&key.merchant.as_str(), &key.branch.as_str(), &name]).await? > 0;
    if is_new {
        tracing::info!(branch = %key, "branch made after an attached table");
    }
    Ok(())
}

/// Makes a merchant unless it is there. The stock of what is attached is decided where it lives.
pub(super) async fn merchant(client: &impl GenericClient, id: &str, name: &str, currency: &str) -> Result<(), AttachError> {
    let sql = "INSERT INTO mstore.merchant (merchant_id, name, currency, stock_authority) VALUES ($1, $2, $3, 'backend') ON CONFLICT (merchant_id) DO NOTHING";
    client.execute(sql, &[&id, &name, &currency]).await?;
    Ok(())
}

/// Makes the branches of the mapping's table of branches.
pub(super) async fn from_table(
    client: &impl GenericClient,
    branches: &Branches,
    of: &MerchantMapping,
    tables: &Tables,
) -> Result<usize, AttachError> {
    let Some(sql) = table_sql(branches, of, tables)? else { return Ok(0) };
    let rows = client.query(&sql, &[]).await?;
    for row in &rows {
        let (merchant, branch, name): (Option<&str>, Option<&str>, Option<&str>) = (row.get(0), row.get(1), row.get(2));
        if let Some(key) = merchant.zip(branch).and_then(|(merchant, branch)| BranchKey::parse(merchant, branch).ok()) {
            create(client, &key, name.unwrap_or(""), &of.currency).await?;
        }
    }
    Ok(rows.len())
}

/// `merchant, branch, name` of every row of the table of branches.
fn table_sql(branches: &Branches, of: &MerchantMapping, tables: &Tables) -> Result<Option<String>, AttachError> {
    let fail = |why: String| AttachError::mapping("branches", why);
    let Some(name) = &branches.table else { return Ok(None) };
    let table = tables.get(name).ok_or_else(|| fail(format!("there is no table {name}, or our role may not see it")))?;
    let column = |name: &String| table.column(name).ok_or_else(|| fail(format!("{} has no column {name:?}", table.name)));
    let branch = column(branches.key.as_ref().ok_or_else(|| fail("key: the column with the branch's id".into()))?)?;
    let merchant = match &branches.merchant {
        Some(name) => format!("mstore.segment({})", key::text_sql(OWN, column(name)?)),
        None => super::name::literal(&of.id),
    };
    let name =
        branches.name.as_ref().map(column).transpose()?.map_or("''".into(), |column| format!("{OWN}.{}::text", quoted(&column.name)));
    Ok(Some(format!("SELECT {merchant}, mstore.segment({}), {name} FROM {} AS {OWN}", key::text_sql(OWN, branch), table.name.sql())))
}
