//! Ports for servers that cannot be handed a listener.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the ports that a system gives to outgoing connections: a client that tries again and again to reach a dead server on one of those may
/// connect to itself one day, and the server could not come back.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on loopback that nobody listens on. Other processes look elsewhere: each begins at a place of its own.
pub(crate) fn free_port() -> u16 {
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 16;
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((start + step) % u32::from(COUNT)).expect("below a u16");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
    panic!("no port is free on loopback");
}
