//! Connections that came through the [door](super::door) and have not logged in yet, known by the address that the library sees.
//!
//! The library's own listeners behind the door are on loopback: whoever else connects to them was not let in, and the gate refuses the login.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rmqtt::types::{Id, ListenerId};
use tokio::sync::watch;

/// Listeners behind the door have ids from here on.
pub(super) const INNER_LISTENERS: ListenerId = 100;

/// Who stands between the door and the gate.
#[derive(Default)]
pub(super) struct Lobby(Mutex<HashMap<SocketAddr, Guest>>);

struct Guest {
    address: IpAddr,
    logged_in: watch::Sender<bool>,
}

/// A connection's place in the lobby; dropped when it is closed.
pub(super) struct Place {
    lobby: Arc<Lobby>,
    inner: SocketAddr,
    pub(super) logged_in: watch::Receiver<bool>,
}

impl Lobby {
    /// Somebody from `address` whom the library sees as `inner`.
    pub(super) fn enter(self: &Arc<Self>, inner: SocketAddr, address: IpAddr) -> Place {
        let (sender, logged_in) = watch::channel(false);
        self.guests().insert(inner, Guest { address, logged_in: sender });
        Place { lobby: self.clone(), inner, logged_in }
    }

    /// Where a connection really comes from; nothing for one that went round the door.
    pub(super) fn address(&self, id: &Id) -> Option<IpAddr> {
        let seen = id.remote_addr?;
        if id.lid < INNER_LISTENERS {
            return Some(seen.ip());
        }
        self.guests().get(&seen).map(|guest| guest.address)
    }

    /// The login was right: the connection may stay.
    pub(super) fn logged_in(&self, id: &Id) {
        let Some(seen) = id.remote_addr else { return };
        if let Some(guest) = self.guests().get(&seen) {
            guest.logged_in.send_replace(true);
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<SocketAddr, Guest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.guests().remove(&self.inner);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(lid: ListenerId, port: u16) -> Id {
        Id::new(1, lid, None, Some(([127, 0, 0, 1], port).into()), "till".into(), None)
    }

    #[test]
    fn the_gate_learns_who_came_through_the_door_and_who_went_round_it() {
        let lobby = Arc::new(Lobby::default());
        let place = lobby.enter(([127, 0, 0, 1], 5_000).into(), [10, 0, 0, 7].into());
        assert_eq!(lobby.address(&id(INNER_LISTENERS, 5_000)), Some([10, 0, 0, 7].into()));
        assert_eq!(lobby.address(&id(INNER_LISTENERS, 5_001)), None);
        assert_eq!(lobby.address(&id(1, 5_001)), Some([127, 0, 0, 1].into()));
        assert!(!*place.logged_in.borrow());
        lobby.logged_in(&id(INNER_LISTENERS, 5_000));
        assert!(*place.logged_in.borrow());
        drop(place);
        assert!(lobby.guests().is_empty());
    }
}
