//! What is attached, as every server reads it from the database.

use std::collections::BTreeMap;

use tokio_postgres::GenericClient;

use super::{
    AttachError,
    mapping::{Branches, CollectionMapping, MerchantMapping, NewBranch},
    source::{self, Source, Tables},
};

/// The setting with [`Shared`], and the one that grows with every change of anything attached.
const SHARED: &str = "attach";
const VERSION: &str = "attach_version";

/// What all collections of a database share.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Shared {
    pub(super) merchant: MerchantMapping,
    pub(super) branches: Branches,
}

/// One attached collection.
#[derive(Debug, Clone)]
pub(in crate::postgres) struct Registered {
    pub(super) source: Source,
    pub(super) mapping: CollectionMapping,
    /// The tables as they were when they were attached.
    pub(super) tables: Tables,
    pub(super) currency: String,
    /// Why devices keep what they have.
    pub(super) stopped: Option<String>,
}

/// Everything that is attached to a database.
#[derive(Debug, Clone, Default)]
pub(in crate::postgres) struct Attached {
    collections: BTreeMap<String, Registered>,
    /// Those that this version cannot read, and why.
    broken: BTreeMap<String, String>,
    shared: Option<Shared>,
    version: i64,
}

impl Attached {
    /// Reads it all.
    pub(in crate::postgres) async fn load(client: &impl GenericClient) -> Result<Self, AttachError> {
        let version = version(client).await?;
        let sql = "SELECT value FROM mstore.setting WHERE name = $1";
        let shared = client.query_opt(sql, &[&SHARED]).await?;
        let shared = shared.map(|row| serde_json::from_str(row.get(0))).transpose()?;
        let sql = "SELECT collection, mapping::text, currency, tables::text, stopped FROM mstore.attached";
        let (mut collections, mut broken) = (BTreeMap::new(), BTreeMap::new());
        for row in client.query(sql, &[]).await? {
            let name: String = row.get(0);
            match Registered::parse(row.get(1), row.get(2), row.get(3), row.get(4)) {
                Ok(registered) => drop(collections.insert(name, registered)),
                Err(error) => {
                    tracing::error!(collection = name, %error, "an attached collection cannot be read; devices keep what they have");
                    broken.insert(name, error.to_string());
                }
            }
        }
        Ok(Self { collections, broken, shared, version })
    }

    /// Whether something was attached, detached, stopped or changed since it was read.
    pub(in crate::postgres) async fn is_stale(&self, client: &impl GenericClient) -> Result<bool, AttachError> {
        Ok(version(client).await? != self.version)
    }

    /// An attached collection.
    pub(in crate::postgres) fn collection(&self, name: &str) -> Option<&Registered> {
        self.collections.get(name)
    }

    /// Whether a collection is attached, in whatever state.
    pub(in crate::postgres) fn has(&self, name: &str) -> bool {
        self.collections.contains_key(name) || self.broken.contains_key(name)
    }

    pub(super) fn version(&self) -> i64 {
        self.version
    }

    /// All of them, by name.
    pub(in crate::postgres) fn collections(&self) -> impl Iterator<Item = (&str, &Registered)> {
        self.collections.iter().map(|(name, registered)| (name.as_str(), registered))
    }

    pub(super) fn new_branch(&self) -> NewBranch {
        self.shared.as_ref().map_or_else(NewBranch::default, |shared| shared.branches.new)
    }
}

impl Registered {
    fn parse(mapping: &str, currency: String, tables: &str, stopped: Option<String>) -> Result<Self, AttachError> {
        let mapping: CollectionMapping = serde_json::from_str(mapping)?;
        let tables: Vec<super::table::Table> = serde_json::from_str(tables)?;
        let tables: Tables = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        let source = source::compile(&mapping, &tables, &currency)?;
        Ok(Self { source, mapping, tables, currency, stopped })
    }
}

async fn version(client: &impl GenericClient) -> Result<i64, AttachError> {
    let row = client.query_opt("SELECT value::bigint FROM mstore.setting WHERE name = $1", &[&VERSION]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Tells every server to read again.
pub(super) async fn changed(client: &impl GenericClient) -> Result<(), AttachError> {
    let sql = "INSERT INTO mstore.setting (name, value) VALUES ($1, '1') ON CONFLICT (name) DO UPDATE SET value = (setting.value::bigint + 1)::text";
    client.execute(sql, &[&VERSION]).await?;
    Ok(())
}

/// Writes what all collections share.
pub(super) async fn store_shared(client: &impl GenericClient, shared: &Shared) -> Result<(), AttachError> {
    let sql = "INSERT INTO mstore.setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    client.execute(sql, &[&SHARED, &serde_json::to_string(shared)?]).await?;
    changed(client).await
}

/// Switches the table on or off that a backend reads operations in; on, unless it was switched, if nobody says which.
pub(super) async fn set_inbox(client: &impl GenericClient, wanted: Option<bool>) -> Result<(), AttachError> {
    let conflict = if wanted.is_some() { "UPDATE SET value = excluded.value" } else { "NOTHING" };
    let sql = format!("INSERT INTO mstore.setting (name, value) VALUES ('operation_inbox', $1) ON CONFLICT (name) DO {conflict}");
    let value = if wanted == Some(false) { "off" } else { "on" };
    client.execute(&sql, &[&value]).await?;
    Ok(())
}

/// Writes one collection, flowing.
pub(super) async fn store(
    client: &impl GenericClient,
    mapping: &CollectionMapping,
    tables: &Tables,
    currency: &str,
    relation: u32,
) -> Result<(), AttachError> {
    let tables: Vec<_> = tables.values().collect();
    let sql = "INSERT INTO mstore.attached (collection, mapping, currency, relation, tables, attached_at) VALUES ($1, $2::text::jsonb, $3, $4, $5::text::jsonb, mstore.utc_now())
        ON CONFLICT (collection) DO UPDATE SET mapping = excluded.mapping, currency = excluded.currency, relation = excluded.relation, tables = excluded.tables,
          version = attached.version + 1, stopped = NULL";
    let (mapping_text, tables_text) = (serde_json::to_string(mapping)?, serde_json::to_string(&tables)?);
    client.execute(sql, &[&mapping.name, &mapping_text, &currency, &relation, &tables_text]).await?;
    changed(client).await
}

/// Stops a collection, or lets it flow again.
pub(super) async fn set_stopped(client: &impl GenericClient, collection: &str, why: Option<&str>) -> Result<(), AttachError> {
    let sql = "UPDATE mstore.attached SET stopped = $2, version = version + 1 WHERE collection = $1 AND stopped IS DISTINCT FROM $2";
    if client.execute(sql, &[&collection, &why]).await? > 0 {
        changed(client).await?;
    }
    Ok(())
}

/// Marks all of a collection, for whoever sequences to find out what that is.
pub(super) async fn mark_everything(client: &impl GenericClient, collection: &str) -> Result<(), AttachError> {
    let sql = "INSERT INTO mstore.mark (collection, merchant_id, branch_id, id) VALUES ($1, '', $2, '')";
    client.execute(sql, &[&collection, &super::triggers::EVERYTHING]).await?;
    Ok(())
}
