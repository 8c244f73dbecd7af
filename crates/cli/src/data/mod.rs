//! Receipts to replay: a real log from a file, or a deterministic generator of the same shape.

pub(crate) mod csv_log;
mod generator;

use std::path::Path;

use mstore_protocol::Currency;

use crate::failure::Failure;

/// A product that the receipts mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogueItem {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Minor units.
    pub(crate) price: i64,
}

/// What an invoice is to a shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvoiceKind {
    Sale,
    Return,
}

/// One line: a product of the catalogue by its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvoiceLine {
    pub(crate) product: usize,
    /// Whole units, positive.
    pub(crate) units: i64,
    /// Minor units.
    pub(crate) unit_price: i64,
}

/// One receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invoice {
    pub(crate) number: String,
    /// Opening-hours seconds since the first receipt; closed hours are left out.
    pub(crate) at_s: u64,
    pub(crate) kind: InvoiceKind,
    pub(crate) lines: Vec<InvoiceLine>,
}

/// Everything a demo sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dataset {
    /// Where it came from, for people.
    pub(crate) source: String,
    pub(crate) currency: Currency,
    pub(crate) catalogue: Vec<CatalogueItem>,
    pub(crate) invoices: Vec<Invoice>,
}

impl Dataset {
    /// Reads the log in `file`, or generates receipts for `open_s` shop seconds.
    pub(crate) fn load(file: Option<&Path>, seed: u64, open_s: u64) -> Result<Self, Failure> {
        file.map_or_else(|| Ok(generator::generate(seed, open_s)), csv_log::read)
    }

    /// Units that each product loses at most below its opening stock in one branch, were all receipts sold there.
    pub(crate) fn units_sold(&self, within_s: u64) -> Vec<i64> {
        let mut units = vec![0; self.catalogue.len()];
        for invoice in self.invoices.iter().take_while(|invoice| invoice.at_s <= within_s) {
            for line in &invoice.lines {
                units[line.product] += line.units;
            }
        }
        units
    }
}

/// Spreads keys evenly and always alike (FNV-1a, 64 bit).
pub(crate) fn keyed_hash(key: &str, seed: u64) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
