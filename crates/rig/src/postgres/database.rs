//! A database of one test, which belongs to a role that may do nothing special.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{OWNER, Postgres, psql, tool};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A database of its own; removed when dropped, whoever is still connected to it.
#[derive(Debug)]
pub struct Database<'a> {
    postgres: &'a Postgres,
    name: String,
}

impl<'a> Database<'a> {
    pub(super) fn create(postgres: &'a Postgres, name: &str) -> Self {
        let name = format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        postgres.superuser_psql("postgres", &format!("CREATE DATABASE \"{name}\" OWNER {OWNER}"));
        Self { postgres, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it lives.
    #[must_use]
    pub fn postgres(&self) -> &'a Postgres {
        self.postgres
    }

    /// Its address for the ordinary role that owns it.
    #[must_use]
    pub fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// Its address for the superuser.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        self.postgres.superuser_url(&self.name)
    }

    /// Leaves it to the server, for tests that kill and restart that; its name.
    #[must_use]
    pub fn keep(self) -> String {
        std::mem::ManuallyDrop::new(self).name.clone()
    }

    /// Everything in it as statements, the same for the same.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn dump(&self) -> String {
        let output = tool("pg_dump").args(["-d", &self.superuser_url()]).output().expect("pg_dump comes with PostgreSQL");
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        // Each dump has a random word of its own in two lines.
        let is_same = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
        String::from_utf8_lossy(&output.stdout).lines().filter(is_same).collect::<Vec<_>>().join("\n")
    }

    /// Runs statements as its owner, one after the other; what they print, unaligned. [`psql()`] says more.
    ///
    /// # Panics
    /// At the first statement that fails.
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.url(), sql)
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        // A server that was stopped takes the database with it.
        if self.postgres.process.is_some() && !std::thread::panicking() {
            self.postgres.superuser_psql("postgres", &format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name));
        }
    }
}
