//! Who may administer, and the record of what they did: admin tokens with roles, and the audit log.

use std::net::IpAddr;

use async_trait::async_trait;
use mstore_protocol::{DeviceId, MerchantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Page, StoreError};

/// Admin tokens. Every change is part of the audit log, in the same transaction.
#[async_trait]
pub trait AdminTokens: Send + Sync {
    /// Keeps a new token; its name must be new.
    async fn add_token(&self, token: NewToken, by: &By) -> Result<TokenRecord, StoreError>;

    /// The token with this hash, if there is one that may do anything, or could until it expired.
    async fn presented(&self, hash: TokenHash, now: Timestamp) -> Result<Option<(TokenRecord, Presented)>, StoreError>;

    /// All tokens by name, or those of a merchant; revoked ones too.
    async fn tokens(&self, of: Option<&MerchantId>) -> Result<Vec<TokenRecord>, StoreError>;

    /// Changes a token and answers what it is then. The last platform token that does not expire is not revoked.
    async fn change_token(&self, name: &str, change: TokenChange, by: &By) -> Result<TokenRecord, StoreError>;

    /// Takes up the token in a server's own file as a platform token of this name. One that was in that file before and ended does not come back.
    async fn keep_file_token(&self, name: &str, hash: TokenHash) -> Result<FileToken, StoreError>;
}

/// What was done to devices, tokens and the books, by whom and from where.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// One page, newest first.
    async fn audit(&self, of: AuditOf, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Records an act that no other case of the store carries out.
    async fn record_act(&self, act: Act, by: &By) -> Result<(), StoreError>;
}

/// SHA-256 of a token of at least 128 random bits: nothing to guess, so nothing is gained by a slow hash.
pub type TokenHash = [u8; 32];

/// What an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    /// Everything.
    Platform,
    /// Everything at one merchant, but for the merchant's settings and other tokens.
    Merchant,
    /// Reads, and changes nothing: everywhere, or at one merchant.
    ReadOnly,
}

impl AdminRole {
    /// The word in the database, on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Merchant => "merchant",
            Self::ReadOnly => "read_only",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(raw: &str) -> Option<Self> {
        [Self::Platform, Self::Merchant, Self::ReadOnly].into_iter().find(|role| role.as_str() == raw)
    }
}

/// A token that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What people, logs and the audit log call it.
    pub name: String,
    /// What it may do.
    pub role: AdminRole,
    /// Where; `None`: everywhere.
    pub merchant: Option<MerchantId>,
    /// Of the token's text.
    pub hash: TokenHash,
    /// Refused from then on; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// What is known of a token; nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// What people, logs and the audit log call it.
    pub name: String,
    /// What it may do.
    pub role: AdminRole,
    /// Where; `None`: everywhere.
    pub merchant: Option<MerchantId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last rotated.
    pub rotated_at: Option<Timestamp>,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The text before the last rotation works, too.
    pub rotating: bool,
    /// It works until then, and not until the first use of the new one.
    pub old_until: Option<Timestamp>,
}

/// How a presented token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// It is the one that counts.
    Current,
    /// The same, and its use ends the one before: tell with [`TokenChange::RetireOld`].
    FirstUse,
    /// The one before, which still works.
    Old,
    /// It was right, and its time is over.
    Expired,
}

/// A change to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenChange {
    /// Another text. The present one works until the new one is used for the first time, or until a time.
    Rotate {
        /// Of the new text.
        hash: TokenHash,
        /// `None`: until the first use of the new one.
        old_until: Option<Timestamp>,
    },
    /// The new text was used.
    RetireOld,
    /// It may nothing any more.
    Revoke,
}

/// What became of the token in a server's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileToken {
    /// It was known, or is now.
    Kept,
    /// It took the place of the one that the file held before.
    Replaced,
    /// It was rotated or revoked: it opens nothing.
    Ended,
}

/// In which role somebody acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorRole {
    /// With an admin token.
    Admin(AdminRole),
    /// A device, with its own token or a claim code.
    Device,
    /// This server by itself.
    Server,
}

impl ActorRole {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin(role) => role.as_str(),
            Self::Device => "device",
            Self::Server => "server",
        }
    }
}

/// Who does something, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// In which role.
    pub role: ActorRole,
    /// The token's name, the device's id, or `server`.
    pub name: String,
    /// From which address.
    pub address: Option<IpAddr>,
}

impl By {
    /// This server by itself.
    pub fn server() -> Self {
        Self { role: ActorRole::Server, name: "server".into(), address: None }
    }

    /// A device.
    pub fn device(device: &DeviceId, address: Option<IpAddr>) -> Self {
        Self { role: ActorRole::Device, name: device.to_string(), address }
    }

    /// Whoever has an admin token.
    pub fn token(token: &TokenRecord, address: Option<IpAddr>) -> Self {
        Self { role: ActorRole::Admin(token.role), name: token.name.clone(), address }
    }
}

/// What was done, without who did it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// `device.revoked`, `token.added`, …: what, and to what kind of thing.
    pub action: &'static str,
    /// Whose.
    pub merchant: Option<String>,
    /// Where.
    pub branch: Option<String>,
    /// To which device.
    pub device: Option<String>,
    /// To which other thing: a token's name, an operation's id.
    pub subject: Option<String>,
    /// For people; nothing secret.
    pub detail: String,
}

/// Which part of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditOf {
    /// Of one merchant only; acts that concern no merchant are left out then.
    pub merchant: Option<MerchantId>,
    /// About one device only.
    pub device: Option<DeviceId>,
    /// By one actor only.
    pub actor: Option<String>,
    /// One action only.
    pub action: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
}
