//! Brokers of others, set up and kept by our own commands: the whole access matrix on each, live, and what becomes of accounts that somebody
//! changes, forgets or restores.
#![allow(clippy::unwrap_used)]

mod failover;
mod matrix;
mod mosquitto;
mod nats;
mod rabbitmq;
#[path = "../support/mod.rs"]
mod support;
