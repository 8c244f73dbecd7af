//! TLS on every listener of a real server: what it shows, how the certificate changes under a connected till, and whom a till believes.

mod believed;
mod handshake;
mod renewed;
#[path = "../support/mod.rs"]
mod support;
