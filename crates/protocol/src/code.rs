//! The error-code table: one stable code for everything that can be refused, and every question about it an exhaustive match.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether the same request may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request gets the same answer.
    Never,
    /// It may succeed after a while.
    Later,
}

macro_rules! codes {
    ($($name:ident = $wire:literal, $status:literal, $retry:ident, $title:literal, $next:literal;)*) => {
        /// A stable code; the wire carries its snake_case name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code {
            $(#[doc = $title] $name,)*
            /// A code that this build does not know, from a newer peer.
            #[serde(other)]
            Unknown,
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The HTTP status of an error answer with this code.
            pub fn http_status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// Whether the same request may succeed later.
            pub fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                    Self::Unknown => Retry::Later,
                }
            }

            /// Its meaning in a few words.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Unknown => "A code this version does not know",
                }
            }

            /// What whoever met it should do.
            pub fn next_step(self) -> &'static str {
                match self {
                    $(Self::$name => $next,)*
                    Self::Unknown => "update this client",
                }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed_request", 400, Never, "The request could not be understood", "compare the request with /openapi.json";
    MalformedRow = "malformed_row", 422, Never, "A row breaks the row rules", "send strings, integers, booleans, null, arrays and objects only, with an id";
    FloatRefused = "float_refused", 422, Never, "A float where none may stand", "send quantities as decimal strings and money as an integer of minor units";
    IntegerOutOfRange = "integer_out_of_range", 422, Never, "An integer beyond ±(2^53−1)", "send large numbers as strings";
    RowTooLarge = "row_too_large", 413, Never, "A row over 256 KiB", "shorten its texts, or its recipe";
    PersonalData = "personal_data", 422, Never, "Personal data where none may stand", "take it out of the field that the detail names; if it is none, the operator may exempt the field";
    MalformedCursor = "malformed_cursor", 400, Never, "Not a cursor of this server", "send the cursor as the head or the last line gave it, or none for a snapshot";
    SnapshotRequired = "snapshot_required", 410, Never, "There are no changes since this cursor any more", "ask again without `after`; keep the upload queue";
    CredentialsMissing = "credentials_missing", 401, Never, "No credentials", "send Authorization: Bearer <device_id>:<token>, or an admin token";
    CredentialsRefused = "credentials_refused", 401, Never, "Wrong credentials", "check the token; enrol the device again if it was lost";
    DeviceRevoked = "device_revoked", 401, Never, "This device was revoked", "make a claim code (mstore-sync device add … --id) and start it with --claim";
    TokenExpired = "token_expired", 401, Never, "The token's time is over", "a till: make a claim code (mstore-sync device add … --id) and start it with --claim; an administrator: mstore-sync token add, or rotate";
    Forbidden = "forbidden", 403, Never, "Not your branch or role", "use credentials of this branch, or an admin token; a till that was moved needs a new claim code";
    NotFound = "not_found", 404, Never, "No such thing", "check the path and the names in it";
    UnknownCollection = "unknown_collection", 404, Never, "No such collection", "use one that the head's digests name";
    AlreadyExists = "already_exists", 409, Never, "It exists already with other content", "read it first, or choose another id";
    Conflict = "conflict", 409, Never, "The present state does not allow this", "read the present state and decide again";
    BodyTooLarge = "body_too_large", 413, Never, "The body is over the limit", "send less at once";
    TooManyOperations = "too_many_operations", 413, Never, "More than 500 operations in one upload", "send at most 500 at once";
    RateLimited = "rate_limited", 429, Later, "Too many requests", "wait as long as Retry-After says";
    Unavailable = "unavailable", 503, Later, "The server cannot answer now", "try again after Retry-After; nothing was lost";
    DiskFull = "disk_full", 503, Later, "The server's disk is full", "free space on the data directory's disk; devices keep their sales";
    Internal = "internal", 500, Later, "The server made a mistake", "try again; if it stays, send the log lines around this time";
    MalformedOperation = "malformed_operation", 422, Never, "An operation that breaks its shape", "correct it and send it under a new id with `replaces`";
    UnknownOperationType = "unknown_operation_type", 422, Never, "Not a type of operation", "use sale, return, receive, adjust, count or transfer";
    OperationTooLarge = "operation_too_large", 422, Never, "One operation over the size limit", "split it into several receipts";
    MalformedQuantity = "malformed_quantity", 422, Never, "Not a quantity", "send a decimal string with up to 3 places and no trailing zeros";
    NegativeQuantity = "negative_quantity", 422, Never, "A quantity with the wrong sign", "sales, returns, receipts and transfers are above 0; only adjustments are signed";
    QuantityOutOfRange = "quantity_out_of_range", 422, Never, "A stock beyond 1,000,000,000", "correct the quantity, or count the shelf";
    UnknownCurrency = "unknown_currency", 422, Never, "Not a currency of ISO 4217", "send the alphabetic code, such as IDR";
    NegativePrice = "negative_price", 422, Never, "A price below zero", "send prices of 0 and more; a discount belongs on the receipt's lines";
    SkuTaken = "sku_taken", 409, Never, "Another product of the merchant has this sku", "give the product a sku of its own, or none (an empty one)";
    CurrencyDiffers = "currency_differs", 422, Never, "The currency is not the one expected", "use the merchant's currency on every line, tender and total";
    TotalDiffers = "total_differs", 422, Never, "The lines do not add up to the total", "correct the total or the lines";
    UnknownProduct = "unknown_product", 422, Never, "No such product", "create the product, or edit the receipt and send it again";
    UnknownItem = "unknown_item", 422, Never, "No such inventory item", "create the item, or edit the operation and send it again";
    UnknownBranch = "unknown_branch", 422, Never, "No such branch", "create the branch, or correct to_branch";
    IdReused = "id_reused", 422, Never, "This id was sent before with another body", "give the new operation an id of its own";
    AlreadyDecided = "already_decided", 409, Never, "It was decided before what becomes of this operation", "nothing, or discard it: the first decision stands and has its effect";
    PathRefused = "path_refused", 422, Never, "Something on the way to the server refuses it", "send it again through another network, or hand the till's journal in as a file";
    NoVerdict = "no_verdict", 422, Never, "The server gave no verdict for this operation", "send it again; if it stays, compare the versions of client and server";
    BelowZero = "below_zero", 422, Never, "The stock would fall below zero", "count the shelf, or change the merchant's stock policy";
    LateDelta = "late_delta", 422, Never, "A count already included this movement", "nothing; it is recorded without an effect";
    NearCount = "near_count", 422, Never, "Within the clock tolerance of a count", "check the count; the order of the two cannot be told";
    StockDecidedElsewhere = "stock_decided_elsewhere", 422, Never, "This merchant's stock is decided by its backend", "send stock through the events of that backend";
    AwaitsBackend = "awaits_backend", 422, Never, "The merchant's backend has not decided yet", "nothing; the till asks again when it has";
    RefusedByBackend = "refused_by_backend", 422, Never, "The merchant's backend refused this operation", "read the backend's own code in the detail; correct the operation and send it again, or discard it";
    StaleEvent = "stale_event", 409, Never, "A newer version of this row was seen", "nothing; the newer figure stands";
    ClaimRefused = "claim_refused", 401, Never, "The claim code is wrong, used or older than 15 minutes", "make a new one: mstore-sync device add";
    DeviceActive = "device_active", 409, Never, "This device is at work in another branch", "move it first: mstore-sync device move TILL BRANCH; or choose another id";
    InsecureUrl = "insecure_url", 400, Never, "A token would cross the network in the clear", "use https:// and mqtts://, or choose the development profile on a network that you trust";
    InsecureListener = "insecure_listener", 400, Never, "A listener would take tokens in the clear from other machines", "give tls_cert and tls_key, listen on loopback, name the proxies that end TLS in front with tls_proxy, or choose the development profile on a network that you trust";
    CertificateUntrusted = "certificate_untrusted", 400, Never, "Nobody that this device trusts vouches for the server's certificate", "give the authority's file with --ca, or a certificate from an authority that devices know";
    CertificateExpired = "certificate_expired", 503, Later, "The server's certificate has ended, or this device's clock is wrong", "renew the certificate, and check the device's clock";
    CertificateName = "certificate_name", 400, Never, "The server's certificate is for another name", "use the name that stands in the certificate, or put this one into it";
    BranchHeld = "branch_held", 503, Later, "The branch's newest changes are held back at the server", "confirm or undo the mass deletion that GET /v1/admin/alarms names; sales go on";
    DataDirInUse = "data_dir_in_use", 409, Never, "Another server uses this data directory", "stop it, or choose another --data-dir";
    AttachMappingInvalid = "attach_mapping_invalid", 422, Never, "The mapping does not fit the tables of the database", "correct the file that attach wrote, or let it write a new one";
    AttachNotAllowed = "attach_not_allowed", 403, Never, "The database role may not do what attaching takes", "run attach as the owner of the tables, or grant what is missing";
    AttachTableBusy = "attach_table_busy", 503, Later, "A table could not be locked for the moment that a trigger takes", "end what holds it (pg_stat_activity), or try at a quieter time";
}

impl Code {
    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        self.retry() == Retry::Later
    }

    /// The code of a wire name.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == raw)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_wire_name_is_the_variant_in_snake_case() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("{:?}", code.as_str()));
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").unwrap(), Code::Unknown);
    }

    #[test]
    fn only_passing_trouble_is_retryable() {
        for code in Code::ALL {
            assert_eq!(code.is_retryable(), matches!(code.http_status(), 429 | 500 | 503), "{code}");
            assert!(!code.next_step().is_empty());
        }
    }
}
