//! Digests of ranges, and ranges replaced by the server's rows.

use std::collections::BTreeSet;

use mstore_protocol::{Collection, Digest, Row, RowHash, SUB_DIGESTS, bucket_of};
use rusqlite::params;

use super::{DbError, LocalDb, apply::insert_row};

impl LocalDb {
    /// The 256 sub-digests of a collection as it is here, from the stored texts: a text altered by hand is found too.
    pub(crate) fn sub_digests(&self, collection: &Collection) -> Result<Box<[Digest; SUB_DIGESTS]>, DbError> {
        let mut sums = Box::new([Digest::EMPTY; SUB_DIGESTS]);
        let mut read = self.conn.prepare_cached("SELECT id, body FROM row WHERE collection = ?1")?;
        let mut rows = read.query([collection.as_str()])?;
        while let Some(row) = rows.next()? {
            let (id, body) = (row.get_ref(0)?, row.get_ref(1)?);
            let (id, body) = (id.as_str().map_err(rusqlite::Error::from)?, body.as_str().map_err(rusqlite::Error::from)?);
            let sum = &mut sums[usize::from(bucket_of(id))];
            *sum = sum.with(RowHash::of(collection, id, body));
        }
        Ok(sums)
    }

    /// Puts the server's rows in the place of whatever is in those ranges.
    pub(crate) fn replace_ranges(&mut self, collection: &Collection, ranges: &[u8], rows: &[(Row, u64)]) -> Result<(), DbError> {
        let ranges: BTreeSet<u8> = ranges.iter().copied().collect();
        let mut digests = self.digests.clone();
        let Some(cursor) = self.cursor else { return Ok(()) };
        Self::transaction(&self.conn, |conn| {
            let ids: Vec<String> = {
                let mut all = conn.prepare_cached("SELECT id FROM row WHERE collection = ?1")?;
                let ids = all.query_map([collection.as_str()], |row| row.get::<_, String>(0))?;
                ids.filter(|id| id.as_ref().map_or(true, |id| ranges.contains(&bucket_of(id)))).collect::<Result<_, _>>()?
            };
            for id in &ids {
                conn.prepare_cached("DELETE FROM row WHERE collection = ?1 AND id = ?2")?.execute(params![collection.as_str(), id])?;
            }
            for (row, seq) in rows {
                insert_row(conn, collection, row.id(), *seq, row.as_str(), row.hash(collection))?;
            }
            // The stored sum may be what was wrong: count anew.
            let mut sum = Digest::EMPTY;
            let mut all = conn.prepare_cached("SELECT id, body FROM row WHERE collection = ?1")?;
            let mut kept = all.query([collection.as_str()])?;
            while let Some(row) = kept.next()? {
                let (id, body): (String, String) = (row.get(0)?, row.get(1)?);
                sum = sum.with(RowHash::of(collection, &id, &body));
            }
            digests.insert(collection.clone(), sum);
            Self::write_position(conn, cursor, &digests)?;
            Ok::<_, DbError>(())
        })?;
        self.digests = digests;
        Ok(())
    }
}
