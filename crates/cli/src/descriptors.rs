//! How many files and sockets this process may have open: every till is one, and most systems begin with 1,024.

use crate::failure::Failure;

/// Takes as many as the system gives without being asked again; how many that are. Child processes inherit it.
pub(crate) fn raise() -> usize {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        Err(error) => {
            tracing::warn!(%error, "the number of open files could not be raised");
            0
        }
    }
}

/// The same, where fewer are of no use.
pub(crate) fn need(files: usize) -> Result<(), Failure> {
    let given = raise();
    if given >= files {
        return Ok(());
    }
    Err(Failure::unavailable(format!("{files} open files are needed in one process, and the system gives {given}"))
        .next("raise the hard limit (ulimit -Hn, LimitNOFILE=), or measure with fewer devices"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_give_is_said() {
        assert!(need(1).is_ok());
        let refused = need(usize::MAX);
        assert!(refused.is_err() || raise() == usize::MAX);
    }
}
