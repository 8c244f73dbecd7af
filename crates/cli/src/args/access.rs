//! The options of `token` and `audit`: who may administer, and what was done.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::AdminArgs;

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything.
    Platform,
    /// Everything at one merchant, but for its settings and tokens.
    Merchant,
    /// Reads, and changes nothing: everywhere, or at one merchant.
    ReadOnly,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make an admin token; it is shown once.
    Add {
        /// What people, logs and the audit log call it.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: Role,
        /// The only merchant that it may see.
        #[arg(long)]
        merchant: Option<String>,
        /// It ends after this: 90d, 12h, 30m, 45s. Without: never.
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires: Option<Duration>,
        /// Write it into this file, readable by its owner only, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List admin tokens, revoked ones too. No token is shown: the server does not have them.
    List {
        #[command(flatten)]
        admin: AdminArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a token another text. The old one ends at the first use of the new one.
    Rotate {
        /// Which; without a name the one that this command uses: then its file is rewritten.
        name: Option<String>,
        /// The old text works for this long instead: 90d, 12h, 30m, 45s.
        #[arg(long, value_name = "TIME", value_parser = time)]
        overlap: Option<Duration>,
        /// Write it into this file, readable by its owner only, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// End a token for ever, at once.
    Revoke {
        /// Which.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Of one merchant only.
    #[arg(long)]
    pub(crate) merchant: Option<String>,
    /// About one till only.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// By this token's name or till only.
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// One kind of act only, such as device.revoked.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Not before this: 2026-11-22T00:00:00.000Z, or so long ago: 90d, 12h, 30m.
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A number and its unit.
pub(crate) fn time(raw: &str) -> Result<Duration, String> {
    let wrong = || format!("{raw:?} is not a time like 90d, 12h, 30m or 45s");
    let unit_s = match raw.chars().last() {
        Some('d') => 86_400,
        Some('h') => 3_600,
        Some('m') => 60,
        Some('s') => 1,
        Some(_) | None => return Err(wrong()),
    };
    let count: u64 = raw[..raw.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(unit_s).filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(time("30m"), Ok(Duration::from_secs(1_800)));
        for wrong in ["", "90", "d", "0s", "-1h", "1.5h", "99999999999999999999d", "9é"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
