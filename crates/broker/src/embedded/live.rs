//! What each open connection was allowed at login, so that a subscription needs no call to the registry; a kick makes it forget.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rmqtt::types::Id;

use crate::policy::Principal;

/// The principals of the connections, by client id.
#[derive(Default)]
pub(super) struct Live(Mutex<State>);

#[derive(Default)]
struct State {
    /// Raised by every kick: a login that read the registry before one must read it again.
    kicks: u64,
    admitted: HashMap<String, (Id, Principal)>,
}

impl Live {
    /// Read before asking the registry, and handed back to [`Self::admit`].
    pub(super) fn kicks(&self) -> u64 {
        self.state().kicks
    }

    /// Remembers a login, unless there was a kick since `kicks` was read: then the registry's answer may be stale.
    pub(super) fn admit(&self, id: Id, principal: Principal, kicks: u64) -> bool {
        let mut state = self.state();
        if state.kicks != kicks {
            return false;
        }
        state.admitted.insert(id.client_id.to_string(), (id, principal));
        true
    }

    /// What this very connection was allowed; nothing for an older one of the same client.
    pub(super) fn principal(&self, id: &Id) -> Option<Principal> {
        let state = self.state();
        let (admitted, principal) = state.admitted.get(&*id.client_id)?;
        (admitted == id).then(|| principal.clone())
    }

    /// Whether any login of this client is remembered.
    pub(super) fn knows(&self, client_id: &str) -> bool {
        self.state().admitted.contains_key(client_id)
    }

    /// A connection ended by itself.
    pub(super) fn forget(&self, id: &Id) {
        let mut state = self.state();
        if state.admitted.get(&*id.client_id).is_some_and(|(admitted, _)| admitted == id) {
            state.admitted.remove(&*id.client_id);
        }
    }

    /// The registry changed for this client.
    pub(super) fn kick(&self, client_id: &str) {
        let mut state = self.state();
        state.kicks += 1;
        state.admitted.remove(client_id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mstore_protocol::Env;

    use super::*;

    fn id(port: u16) -> Id {
        Id::new(1, 1, None, Some(([127, 0, 0, 1], port).into()), "till".into(), None)
    }

    fn backend() -> Principal {
        Principal::Backend { env: Env::parse("prod").unwrap() }
    }

    #[test]
    fn a_login_that_overlaps_a_kick_is_not_admitted() {
        let live = Live::default();
        let before = live.kicks();
        live.kick("another till");
        assert!(!live.admit(id(1), backend(), before));
        assert!(!live.knows("till"));
        assert!(live.admit(id(1), backend(), live.kicks()));
    }

    #[test]
    fn the_end_of_an_old_connection_leaves_the_new_one() {
        let live = Live::default();
        let (old, new) = (id(1), id(2));
        assert!(live.admit(old.clone(), backend(), 0) && live.admit(new.clone(), backend(), 0));
        live.forget(&old);
        assert_eq!(live.principal(&old), None);
        assert_eq!(live.principal(&new), Some(backend()));
        live.forget(&new);
        assert!(!live.knows("till"));
    }
}
