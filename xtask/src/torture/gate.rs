//! A cable that can be pulled: a TCP proxy before one till's HTTP or MQTT.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};

/// What the cable does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cable {
    /// Bytes pass.
    Plugged,
    /// Nothing passes and nobody is told: what was sent waits, as in a network that lost its way.
    Silent,
    /// Connections break, and new ones are refused.
    Cut,
}

struct State {
    cable: Cable,
    /// Raised by every cut: connections of an earlier one are over.
    cuts: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits out the silence; whether the connection made after `cuts` cuts may go on.
    fn pass(&self, cuts: u64) -> bool {
        let mut state = self.lock();
        while state.cable == Cable::Silent {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.cable == Cable::Plugged && state.cuts == cuts
    }
}

/// A listening proxy; its threads live as long as the program.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    /// Listens at `at` on a free port and passes everything on to the port `target` of loopback.
    pub(super) fn open(at: Ipv4Addr, target: u16) -> Result<Self> {
        let listener = TcpListener::bind((at, 0)).context("no port for a proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { state: Mutex::new(State { cable: Cable::Plugged, cuts: 0 }), changed: Condvar::new() });
        let open = Arc::new(Mutex::new(Vec::new()));
        let gate = Self { address, shared: shared.clone(), open: open.clone() };
        thread::spawn(move || {
            for till in listener.incoming().flatten() {
                let (shared, open) = (shared.clone(), open.clone());
                thread::spawn(move || connect(till, (Ipv4Addr::LOCALHOST, target).into(), &shared, &open));
            }
        });
        Ok(gate)
    }

    pub(super) fn set(&self, cable: Cable) {
        let mut state = self.shared.lock();
        state.cable = cable;
        if cable == Cable::Cut {
            state.cuts += 1;
            for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                // It may be over already.
                let _closed = stream.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

fn connect(till: TcpStream, target: SocketAddr, shared: &Arc<Shared>, open: &Arc<Mutex<Vec<TcpStream>>>) {
    let cuts = shared.lock().cuts;
    if !shared.pass(cuts) {
        return;
    }
    let Ok(server) = TcpStream::connect(target) else { return };
    let pairs = (till.try_clone(), server.try_clone());
    let (Ok(till_reads), Ok(server_reads)) = pairs else { return };
    for stream in [&till, &server] {
        let _small_delay = stream.set_nodelay(true);
        if let Ok(stream) = stream.try_clone() {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|stream| stream.peer_addr().is_ok());
            open.push(stream);
        }
    }
    let other = shared.clone();
    thread::spawn(move || copy(server_reads, till, &other, cuts));
    copy(till_reads, server, shared, cuts);
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared, cuts: u64) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !shared.pass(cuts) || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _closed_already = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        stream.write_all(&byte).unwrap();
                    }
                });
            }
        });
        port
    }

    fn said(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut heard = [0];
        stream.read_exact(&mut heard).map(|()| heard[0])
    }

    #[test]
    fn a_silent_cable_keeps_what_it_was_given_and_a_cut_one_breaks() {
        let gate = Gate::open(Ipv4Addr::LOCALHOST, echo()).unwrap();
        let mut stream = TcpStream::connect(gate.address).unwrap();
        assert_eq!(said(&mut stream, 1).unwrap(), 1);
        gate.set(Cable::Silent);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(said(&mut stream, 2).is_err(), "nothing passes");
        gate.set(Cable::Plugged);
        stream.set_read_timeout(None).unwrap();
        let mut late = [0];
        stream.read_exact(&mut late).unwrap();
        assert_eq!(late, [2], "it was only late");
        gate.set(Cable::Cut);
        assert!(said(&mut stream, 3).is_err());
        gate.set(Cable::Plugged);
        assert!(said(&mut stream, 3).is_err(), "what was cut stays cut");
        let mut stream = TcpStream::connect(gate.address).unwrap();
        assert_eq!(said(&mut stream, 4).unwrap(), 4);
    }
}
