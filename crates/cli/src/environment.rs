//! Variables that begin with `MSTORE_` and that nobody reads: a setting that was misspelt must not be ignored in silence.
//!
//! One that is near to a known name is refused. Others are only named: Kubernetes gives every pod `MSTORE_PORT` and more when a service is
//! called `mstore`.

use mstore_protocol::nearest;

use crate::{failure::Failure, settings};

const PREFIX: &str = "MSTORE_";
/// Of this project's own tests.
const TESTS: &str = "MSTORE_TEST_";
/// Read beside the settings of `serve`.
const OTHERS: [&str; 7] =
    ["MSTORE_CONFIG", "MSTORE_SERVER", "MSTORE_CA", "MSTORE_CLAIM", "MSTORE_ADMIN_TOKEN", "MSTORE_ADMIN_TOKEN_FILE", "MSTORE_LOG"];

/// Names the variables that nobody reads; refuses one that was meant as a setting.
#[allow(clippy::print_stderr)]
pub(crate) fn check(names: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let known: Vec<String> = settings::variables().chain(OTHERS.map(str::to_owned)).collect();
    let unread = |name: &String| name.starts_with(PREFIX) && !name.starts_with(TESTS) && !known.contains(name);
    for name in names.into_iter().filter(unread) {
        if let Some(meant) = meant(&name, &known) {
            return Err(Failure::usage(format!("the environment variable {name} is not one of mine; did you mean {meant}?"))
                .next(format!("rename it, or take it away: unset {name}")));
        }
        eprintln!("mstore-sync: the environment variable {name} is not one of mine and does nothing");
    }
    Ok(())
}

/// The prefix is no sign of nearness.
fn meant<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let keys = known.iter().map(|known| &known[PREFIX.len()..]);
    let key = nearest(&name[PREFIX.len()..].to_uppercase(), keys)?;
    known.iter().find(|known| known.ends_with(key) && known.len() == PREFIX.len() + key.len()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checked(name: &str) -> Result<(), Failure> {
        check([name.to_owned()])
    }

    #[test]
    fn a_misspelt_setting_is_refused_and_a_strange_variable_is_not() {
        for fine in ["PATH", "MSTORE_LISTEN", "MSTORE_TLS_CERT", "MSTORE_SERVER", "MSTORE_TEST_SKIP_MISSING"] {
            assert!(checked(fine).is_ok(), "{fine}");
        }
        for (misspelt, meant) in [
            ("MSTORE_LISTN", "MSTORE_LISTEN"),
            ("MSTORE_DATADIR", "MSTORE_DATA_DIR"),
            ("MSTORE_ADMIN_TOKEN_FIL", "MSTORE_ADMIN_TOKEN_FILE"),
            ("MSTORE_listen", "MSTORE_LISTEN"),
        ] {
            let failure = format!("{:?}", checked(misspelt).unwrap_err());
            assert!(failure.contains(misspelt) && failure.contains(meant), "{failure}");
        }
        for foreign in ["MSTORE_SERVICE_HOST", "MSTORE_PORT_8080_TCP_ADDR", "MSTORE_PORT_8080_TCP", "MSTORE_COLOUR_OF_THE_DOOR"] {
            assert!(checked(foreign).is_ok(), "{foreign}");
        }
    }
}
