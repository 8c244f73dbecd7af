//! Capture on PostgreSQL under sixteen writers: nothing lost, no commit torn, no row going back; and the naive methods, which must fail here.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod controls;
mod dead_marks;
mod foreign;
mod interleavings;
mod naive;
mod observer;
mod readers;
mod session;
mod stage;
mod store;
mod triggers;
mod workload;
