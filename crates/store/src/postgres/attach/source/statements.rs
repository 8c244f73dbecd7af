//! The statements that read a collection. All of them take keys as texts, and look rows up by their keys.

use super::{
    super::{
        key,
        name::{literal, quoted},
        table::Column,
    },
    OWN, Related, Source, Window,
};

impl Source {
    pub(in super::super) fn key(&self) -> Vec<&Column> {
        self.key.iter().collect()
    }

    /// Expression of the row id.
    pub(in super::super) fn id_sql(&self) -> String {
        key::id_sql(OWN, &self.key())
    }

    /// Expression of the branch: NULL where every branch has the row.
    fn branch_sql(&self) -> &str {
        self.branch.as_deref().unwrap_or("NULL::text")
    }

    fn own_sql(&self) -> String {
        format!("{} AS {OWN}", self.table.name.sql())
    }

    /// The wanted keys: `w`, with the branch, the parts of the key and the number of each. `$1` the branches, `$2…` the parts of the keys.
    fn wanted_sql(&self) -> String {
        let arrays: Vec<String> = (0..self.key.len()).map(|i| format!("${}::text[]", i + 2)).collect();
        let names: Vec<String> = (0..self.key.len()).map(|i| format!("k{i}")).collect();
        format!("unnest($1::text[], {}) WITH ORDINALITY AS {{w}}(branch, {}, n)", arrays.join(", "), names.join(", "))
    }

    /// The rows that have the wanted keys.
    fn found_sql(&self) -> String {
        let equal: Vec<String> = self.key.iter().enumerate().map(|(i, column)| key::equals_sql(OWN, column, &format!("w.k{i}"))).collect();
        let (own, equal) = (self.own_sql(), equal.join(" AND "));
        if self.table.is_found_by_key() && self.key.iter().all(key::is_found_by_index) {
            return format!("CROSS JOIN LATERAL (SELECT {OWN}.* FROM {own} WHERE {equal} OFFSET 0) AS {OWN}");
        }
        format!("JOIN {own} ON {equal}")
    }

    /// The table and the joins that tell whose a row is, after FROM.
    pub(in super::super) fn own_with_joins_sql(&self) -> String {
        format!("{}{}", self.own_sql(), self.joins.looked_up)
    }

    /// Whether a row is young enough to be on devices.
    fn is_young_sql(&self) -> String {
        self.window.as_ref().map_or_else(|| "true".to_owned(), Window::is_young)
    }

    /// Whole rows by key: `n, merchant, branch, whether it is young enough, values…`.
    pub(in super::super) fn rows_sql(&self) -> String {
        let values: String = self.values.iter().map(|value| format!(", {value}")).collect();
        let (merchant, branch, found) = (&self.merchant, self.branch_sql(), self.found_sql());
        let (joins, branch_joins) = (&self.joins.looked_up, &self.branch_joins.looked_up);
        let (with, wanted) = self.wanted_with_branches_sql();
        let is_young = self.is_young_sql();
        format!("{with}SELECT w.n, {merchant}, {branch}, {is_young}{values} FROM {wanted} {found}{joins}{branch_joins}")
    }

    /// The wanted keys beside the wanted branch as values of the columns that name it, and what these need in front of the query.
    fn wanted_with_branches_sql(&self) -> (String, String) {
        let branches = &self.branch_joins.branches;
        if branches.is_empty() {
            return (String::new(), self.wanted_sql().replace("{w}", "w"));
        }
        let others = branches.iter().enumerate().filter_map(|(n, (_, others))| Some((n, others.as_ref()?)));
        let others: Vec<String> = others.map(|(n, query)| format!("other{n} AS MATERIALIZED ({query})")).collect();
        let with = if others.is_empty() { String::new() } else { format!("WITH {} ", others.join(", ")) };
        let values: String = branches.iter().enumerate().map(|(n, (value, _))| format!(", {value} AS b{n}")).collect();
        (with, format!("(SELECT u.*{values} FROM {} OFFSET 0) AS w", self.wanted_sql().replace("{w}", "u")))
    }

    /// Whose rows are, by key: `n, merchant, branch`.
    pub(in super::super) fn owners_sql(&self) -> String {
        let (merchant, branch, found) = (&self.merchant, self.branch_sql(), self.found_sql());
        let wanted = self.wanted_sql().replace("{w}", "w");
        format!("SELECT w.n, {merchant}, {branch} FROM {wanted} {found}{}", self.joins.looked_up)
    }

    /// All rows by key after another: `id, merchant, branch, whether it is young enough`; `$1` the limit, `$2…` the parts of the key to go on after.
    pub(in super::super) fn page_sql(&self, after: bool) -> String {
        let order = self.order();
        let columns: Vec<String> = order.iter().map(|at| format!("{OWN}.{}", quoted(&self.key[*at].name))).collect();
        let columns = columns.join(", ");
        let casts: Vec<String> = order.iter().map(|at| key::cast_sql(&self.key[*at], &format!("${}::text", at + 2))).collect();
        let condition = if after { format!(" WHERE ({columns}) > ({})", casts.join(", ")) } else { String::new() };
        let (id, merchant, branch, own) = (self.id_sql(), &self.merchant, self.branch_sql(), self.own_sql());
        let is_young = self.is_young_sql();
        format!(
            "SELECT {id}, {merchant}, {branch}, {is_young} FROM (SELECT {OWN}.* FROM {own}{condition} ORDER BY {columns} LIMIT $1) AS {OWN}{} ORDER BY {columns}",
            self.joins.looked_up
        )
    }

    /// The columns of the key in the order of the index that has them.
    fn order(&self) -> Vec<usize> {
        let place = |name: &String| self.key.iter().position(|column| column.name == *name);
        let places = |key: &Vec<String>| key.iter().map(place).collect::<Option<Vec<usize>>>();
        let whole = |order: &Vec<usize>| order.len() == self.key.len();
        self.table.keys.iter().filter_map(places).find(whole).unwrap_or_else(|| (0..self.key.len()).collect())
    }

    /// Ids of the rows that a related table's keys belong to: `id, n`; `$1…` the parts of those keys. By an index where the rows themselves have the key.
    pub(in super::super) fn related_sql(&self, related: &Related) -> String {
        let arrays: Vec<String> = (1..=related.lefts.len()).map(|i| format!("${i}::text[]")).collect();
        let names: Vec<String> = (0..related.lefts.len()).map(|i| format!("k{i}")).collect();
        let equal: Vec<String> =
            related.lefts.iter().zip(&names).map(|((at, column), name)| key::equals_sql(at, column, &format!("w.{name}"))).collect();
        let wanted = format!("unnest({}) WITH ORDINALITY AS w({}, n)", arrays.join(", "), names.join(", "));
        let (id, own, equal) = (self.id_sql(), self.own_sql(), equal.join(" AND "));
        let columns: Vec<&str> = related.lefts.iter().map(|(_, column)| column.name.as_str()).collect();
        let is_own = related.lefts.iter().all(|(at, column)| at == OWN && key::is_found_by_index(column));
        if is_own && self.table.is_indexed_by(&columns) {
            return format!(
                "SELECT {id}, w.n FROM {wanted} CROSS JOIN LATERAL (SELECT {OWN}.* FROM {own} WHERE {equal} OFFSET 0) AS {OWN}"
            );
        }
        format!("SELECT {id}, w.n FROM {own}{} JOIN {wanted} ON {equal}", self.joins.planned)
    }

    /// Rows of the collection on all devices, by id: `id` is one of `w.id`. There is an index for it ([`Source::mirror_index_sql`]).
    pub(in super::super) fn on_devices_sql(&self) -> String {
        let collection = literal(self.collection.as_str());
        format!(
            "CROSS JOIN LATERAL (SELECT m.head FROM mstore.mirror m WHERE m.collection = {collection} AND m.id = w.id AND m.row IS NOT NULL OFFSET 0) m
             JOIN mstore.head h ON h.n = m.head"
        )
    }

    /// The index that finds a row on whatever devices have it; none if a row itself tells whose it is and was.
    pub(in super::super) fn mirror_index_sql(&self) -> Option<String> {
        let collection = self.collection.as_str();
        let name = mirror_index(collection);
        (!self.is_direct).then(|| {
            format!("CREATE INDEX IF NOT EXISTS {} ON mstore.mirror (id) WHERE collection = {}", quoted(&name), literal(collection))
        })
    }
}

/// The name of a collection's index of the mirror.
pub(in super::super) fn mirror_index(collection: &str) -> String {
    format!("mirror_of_{}", super::super::triggers::short(collection))
}
