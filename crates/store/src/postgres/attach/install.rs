//! Puts capture on the tables of a mapping, and takes it away again.
//!
//! `CREATE TRIGGER` takes a lock that lets readers pass and writers wait (SHARE ROW EXCLUSIVE). Waiting for it would make the writers behind it wait as
//! well, so each try waits for [`LOCK_WAIT`] only and then lets everybody pass before the next.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{Client, GenericClient, error::SqlState};

use super::{
    AttachError, Progress, branches, guard, look,
    mapping::{CollectionMapping, Mapping},
    name::{TableName, quoted},
    registry::{self, Shared},
    resolve, rows,
    source::{self, Source, Tables},
    triggers::{self, Capture},
    windows,
};

/// How long a try for a table's lock waits.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// How long writers pass freely between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(250);
/// Tries before giving up.
const LOCK_TRIES: u32 = 60;
/// Rows marked in one transaction.
const SLICE_ROWS: i64 = 5_000;

/// A mapping that fits its tables, ready to be carried out.
pub struct Plan {
    mapping: Mapping,
    pub(super) collections: Vec<Planned>,
    tables: Tables,
}

pub(super) struct Planned {
    pub(super) mapping: CollectionMapping,
    pub(super) source: Source,
    pub(super) captures: Vec<Capture>,
    pub(super) tables: Tables,
}

/// Checks a mapping against the database.
pub(super) async fn plan(client: &impl GenericClient, mapping: Mapping) -> Result<Plan, AttachError> {
    let names: Vec<TableName> = names(&mapping);
    let tables: Tables = look::some(client, &names).await?.into_iter().map(|table| (table.name.clone(), table)).collect();
    let mut collections = Vec::new();
    for collection in mapping.collections.iter().filter(|collection| collection.enabled) {
        if collections.iter().any(|planned: &Planned| planned.mapping.name == collection.name) {
            return Err(AttachError::mapping(&collection.name, "two tables have this name; each collection takes its own"));
        }
        let planned = planned(collection, &tables, &mapping.merchant.currency)?;
        allowed(&planned)?;
        collections.push(planned);
    }
    mstore_protocol::MerchantId::parse(&mapping.merchant.id).map_err(|error| AttachError::mapping("merchant", error.to_string()))?;
    Ok(Plan { mapping, collections, tables })
}

/// One collection with what it needs of the tables.
pub(super) fn planned(mapping: &CollectionMapping, tables: &Tables, currency: &str) -> Result<Planned, AttachError> {
    let source = source::compile(mapping, tables, currency)?;
    let captures = triggers::captures(&source);
    let of_it = |name: &TableName| tables.get(name).map(|table| (name.clone(), table.clone()));
    let tables = names_of(mapping).iter().filter_map(of_it).collect();
    Ok(Planned { mapping: mapping.clone(), source, captures, tables })
}

fn names(mapping: &Mapping) -> Vec<TableName> {
    let enabled = mapping.collections.iter().filter(|collection| collection.enabled);
    enabled.flat_map(names_of).chain(mapping.branches.table.clone()).collect()
}

pub(super) fn names_of(mapping: &CollectionMapping) -> Vec<TableName> {
    let joins = mapping.joins.iter().map(|join| join.table.clone());
    let watches = mapping.watches.iter().map(|watch| watch.table.clone());
    std::iter::once(mapping.table.clone()).chain(joins).chain(watches).collect()
}

/// What our role must be able to do, said before anything is done.
fn allowed(planned: &Planned) -> Result<(), AttachError> {
    for table in planned.tables.values() {
        let fail = |why: &str| Err(AttachError::NotAllowed { table: table.name.clone(), why: why.to_owned() });
        if !table.rights.select {
            return fail("our role may not read it: GRANT SELECT ON it");
        }
        if table.rights.row_security {
            return fail("row security hides rows from our role, and hidden rows would look deleted: run as a role with BYPASSRLS");
        }
        let is_captured = planned.captures.iter().any(|capture| capture.table.oid == table.oid);
        if is_captured && !table.rights.owner {
            return fail("only its owner may put triggers on it that always fire: run `attach` as the owner or a superuser");
        }
    }
    Ok(())
}

impl Plan {
    /// The statements on the customer's tables and on our schema, in order, for people to read.
    pub fn sql(&self) -> Vec<String> {
        let mut statements = Vec::new();
        for planned in &self.collections {
            for capture in &planned.captures {
                statements.push(capture.function_sql());
                statements.push(capture.revoke_sql());
                for (_, table) in capture.tables() {
                    let is_made = |sql: &String| !sql.starts_with("DROP ");
                    statements.extend(capture.triggers_sql(table).into_iter().filter(is_made));
                }
            }
        }
        statements
    }

    /// The collections, each with its table and about how many rows that has.
    pub fn collections(&self) -> impl Iterator<Item = (&str, &TableName, i64)> {
        self.collections.iter().map(|planned| (planned.mapping.name.as_str(), &planned.mapping.table, planned.source.table.rows_estimate))
    }
}

/// Carries the plan out. Repeating it does no harm.
pub(super) async fn install(
    client: &mut Client,
    plan: &Plan,
    inbox: Option<bool>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), AttachError> {
    for planned in &plan.collections {
        check(client, planned).await?;
    }
    for sql in plan.collections.iter().filter_map(|planned| planned.source.mirror_index_sql()) {
        under_lock(client, &TableName::new("mstore", "mirror"), &[sql]).await?;
    }
    register(client, plan, inbox).await?;
    for planned in &plan.collections {
        capture(client, planned, progress).await?;
    }
    for planned in &plan.collections {
        let rows = mark_all(client, planned, plan, progress).await?;
        progress(Progress::Marked { collection: planned.mapping.name.clone(), rows, done: true });
    }
    Ok(())
}

/// What servers know of it, in one transaction: from the moment when a merchant's backend decides, its operations have to reach it.
async fn register(client: &mut Client, plan: &Plan, inbox: Option<bool>) -> Result<(), AttachError> {
    let transaction = client.transaction().await?;
    let merchant = &plan.mapping.merchant;
    registry::set_inbox(&transaction, inbox).await?;
    branches::merchant(
        &transaction,
        &merchant.id,
        if merchant.name.is_empty() { &merchant.id } else { &merchant.name },
        &merchant.currency,
    )
    .await?;
    branches::decided_by_backend(&transaction, &merchant.id).await?;
    branches::from_table(&transaction, &plan.mapping.branches, merchant, &plan.tables).await?;
    for planned in &plan.collections {
        for capture in &planned.captures {
            transaction.batch_execute(&capture.function_sql()).await?;
            transaction.batch_execute(&capture.revoke_sql()).await?;
        }
        fixed_branch(&transaction, &planned.mapping, merchant).await?;
        registry::store(&transaction, &planned.mapping, &planned.tables, &merchant.currency, planned.source.table.oid).await?;
        windows::begin(&transaction, &planned.mapping.name, planned.source.window.as_ref().map(|window| window.days)).await?;
    }
    registry::store_shared(&transaction, &Shared { merchant: merchant.clone(), branches: plan.mapping.branches.clone() }).await?;
    Ok(transaction.commit().await?)
}

/// What only the database can tell about a mapping: whether its statements work. Nothing was changed before.
async fn check(client: &mut Client, planned: &Planned) -> Result<(), AttachError> {
    let transaction = client.transaction().await?;
    let checked = guard::guarded(&transaction, rows::check(&transaction, &planned.source)).await?;
    transaction.rollback().await?;
    checked.map_err(|why| AttachError::mapping(&planned.mapping.name, why))
}

async fn fixed_branch(
    client: &impl GenericClient,
    mapping: &CollectionMapping,
    merchant: &super::mapping::MerchantMapping,
) -> Result<(), AttachError> {
    use super::mapping::Place::Fixed;
    let Fixed { fixed: branch } = &mapping.branch else { return Ok(()) };
    let of = if let Fixed { fixed } = &mapping.merchant { fixed } else { &merchant.id };
    let key = mstore_protocol::BranchKey::parse(of, branch).map_err(|error| AttachError::mapping(&mapping.name, error.to_string()))?;
    branches::create(client, &key, branch, &merchant.currency).await
}

/// Puts the triggers of a collection on, and takes off what an earlier mapping needed and this one does not.
pub(super) async fn capture(
    client: &mut Client,
    planned: &Planned,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), AttachError> {
    let mut wanted = Vec::new();
    for capture in &planned.captures {
        for (oid, table) in capture.tables() {
            wanted.extend(capture.trigger_names().map(|name| (oid, name)));
            under_lock(client, table, &capture.triggers_sql(table)).await?;
            progress(Progress::Captured { collection: planned.mapping.name.clone(), table: table.clone() });
        }
    }
    let functions: Vec<&str> = planned.captures.iter().map(|capture| capture.function.as_str()).collect();
    let stale = installed(client, &planned.mapping.name).await?;
    take_off(client, stale.into_iter().filter(|found| !wanted.contains(&(found.oid, found.trigger.clone()))).collect()).await?;
    drop_functions(client, &planned.mapping.name, &functions).await
}

/// Runs the statements on one table in one transaction, as soon as its lock can be had without making others wait long.
pub(super) async fn under_lock(client: &mut Client, table: &TableName, statements: &[String]) -> Result<(), AttachError> {
    for _ in 0..LOCK_TRIES {
        match try_under_lock(client, statements).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) || error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            done => return Ok(done?),
        }
    }
    let waited_ms = u64::try_from(LOCK_WAIT.as_millis()).unwrap_or(u64::MAX);
    Err(AttachError::Locked { table: table.clone(), waited_ms, tries: LOCK_TRIES })
}

async fn try_under_lock(client: &mut Client, statements: &[String]) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {}", LOCK_WAIT.as_millis())).await?;
    for statement in statements {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await
}

/// The first mirror: marks every row, slice by slice by key, so that no transaction of ours lasts.
async fn mark_all(
    client: &mut Client,
    planned: &Planned,
    plan: &Plan,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<u64, AttachError> {
    let mut after: Option<String> = None;
    let mut rows = 0;
    loop {
        let transaction = client.transaction().await?;
        let xid: String = transaction.query_one("SELECT pg_current_xact_id()::text", &[]).await?.get(0);
        let (owned, last) = resolve::page(&transaction, &planned.source, after.as_deref(), &xid, SLICE_ROWS).await?;
        owned.mark(&transaction, &planned.source, &plan.mapping.merchant.currency, plan.mapping.branches.new).await?;
        transaction.commit().await?;
        rows += owned.len() as u64;
        progress(Progress::Marked { collection: planned.mapping.name.clone(), rows, done: false });
        if last.is_none() {
            return Ok(rows);
        }
        after = last;
    }
}

/// A trigger of ours on a table.
pub(super) struct Installed {
    pub(super) oid: u32,
    pub(super) table: TableName,
    pub(super) trigger: String,
    /// Whether it fires always.
    pub(super) is_always: bool,
}

/// Our triggers for a collection, wherever they are.
pub(super) async fn installed(client: &impl GenericClient, collection: &str) -> Result<Vec<Installed>, AttachError> {
    let sql = "SELECT c.oid, n.nspname, c.relname, t.tgname, t.tgenabled = 'A' FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = 'mstore'::regnamespace AND p.proname = ANY($1)";
    let functions = functions(client, collection).await?;
    let rows = client.query(sql, &[&functions]).await?;
    let found = |row: &tokio_postgres::Row| Installed {
        oid: row.get(0),
        table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        trigger: row.get(3),
        is_always: row.get(4),
    };
    Ok(rows.iter().map(found).collect())
}

/// Our capture functions for a collection, also those of an earlier mapping.
async fn functions(client: &impl GenericClient, collection: &str) -> Result<Vec<String>, AttachError> {
    let prefix = triggers::function_prefix(collection);
    let sql = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'mstore'::regnamespace AND starts_with(proname, $1) AND substr(proname, length($1) + 1) ~ '^[0-9]+$'";
    Ok(client.query(sql, &[&prefix]).await?.iter().map(|row| row.get(0)).collect())
}

async fn take_off(client: &mut Client, triggers: Vec<Installed>) -> Result<(), AttachError> {
    let mut by_table: BTreeMap<TableName, Vec<String>> = BTreeMap::new();
    for found in triggers {
        let sql = format!("DROP TRIGGER IF EXISTS {} ON {}", quoted(&found.trigger), found.table.sql());
        by_table.entry(found.table).or_default().push(sql);
    }
    for (table, statements) in &by_table {
        under_lock(client, table, statements).await?;
    }
    Ok(())
}

async fn drop_functions(client: &impl GenericClient, collection: &str, keep: &[&str]) -> Result<(), AttachError> {
    for function in functions(client, collection).await? {
        if !keep.contains(&function.as_str()) {
            client.batch_execute(&format!("DROP FUNCTION mstore.{}()", quoted(&function))).await?;
        }
    }
    Ok(())
}

/// Takes a collection off its tables: triggers, functions, what we know about it. Devices keep what they have.
pub(super) async fn detach(client: &mut Client, collection: &str) -> Result<usize, AttachError> {
    let triggers = installed(client, collection).await?;
    let count = triggers.len();
    take_off(client, triggers).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("DROP INDEX IF EXISTS mstore.{}", quoted(&source::mirror_index(collection)))).await?;
    drop_functions(&transaction, collection, &[]).await?;
    for sql in [
        "DELETE FROM mstore.attached WHERE collection = $1",
        "DELETE FROM mstore.stray WHERE collection = $1",
        "DELETE FROM mstore.mark WHERE collection = $1",
    ] {
        transaction.execute(sql, &[&collection]).await?;
    }
    super::alarms::clear(&transaction, super::alarms::CHANGED, collection).await?;
    super::alarms::clear(&transaction, super::alarms::STRAYS, collection).await?;
    registry::changed(&transaction).await?;
    transaction.commit().await?;
    Ok(count)
}
