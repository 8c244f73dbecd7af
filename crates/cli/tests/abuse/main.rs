//! Attacks on a real server, one file each: it stays up, its memory stays bounded, and a till beside the attack keeps its latency.
//!
//! The attacker has an address of its own, 127.0.0.2, and the server believes to stand behind a proxy at 127.0.0.9: so connections are counted
//! as those of other machines are, and pass the door in front of the embedded broker.

mod bodies;
mod bystander;
mod crowds;
mod hostile_mqtt;
mod rates;
mod slow;
#[path = "../support/mod.rs"]
mod support;
mod wire;
