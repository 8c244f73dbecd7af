//! The server over real sockets: SQLite in a temporary directory, the embedded broker, a real HTTP client, a plain MQTT client.
#![allow(clippy::unwrap_used)]

mod access;
mod bad_input;
mod changes;
mod dead_letters;
mod deploy;
mod devices;
mod documents;
mod events;
mod fleet;
mod hooks;
mod hostile;
mod mqtt;
mod operations;
mod publishing;
mod roles;
mod routes;
mod shop;
mod strangers;
mod upkeep;
mod webhook;
