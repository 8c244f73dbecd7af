//! The store on PostgreSQL, in a schema of its own in the customer's database.

pub mod attach;
