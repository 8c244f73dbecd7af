//! Real servers for tests, in directories of their own, on ports of their own; no fake of anything, and no part of what is shipped.
//!
//! Everything here panics where it cannot go on: a test that has no server has failed. What is not installed is said by [`have`].
//! A server ends when its value is dropped, and also when the test's process dies, however it does.

mod account;
mod certificate;
mod guardian;
mod mosquitto;
mod nats;
mod port;
mod postgres;
mod program;
mod rabbitmq;
mod server_process;

pub use mosquitto::Mosquitto;
pub use nats::{NATS_NODES, Nats, NatsCluster};
pub use postgres::{Database, Options, Postgres, psql, try_psql};
pub use program::{Program, have};
pub use rabbitmq::RabbitMq;
