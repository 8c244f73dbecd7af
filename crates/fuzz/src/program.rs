//! The files that the command line reads: configuration and receipt logs.

use std::collections::BTreeMap;

use crate::{
    args::ServeArgs,
    data::csv_log::parse,
    settings::{RawConfig, parse_file},
};

/// A configuration file: what is printed is a valid file with the same values.
pub fn config_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(settings) = parse_file(text) else { return };
    let settings: BTreeMap<&str, String> = settings.into_iter().collect();
    let from_environment = |name: &str| settings.get(name.strip_prefix("MSTORE_")?.to_lowercase().as_str()).cloned();
    let Ok(raw) = RawConfig::merge(&ServeArgs::default(), from_environment) else { panic!("values without a file were refused") };
    let shown = raw.render();
    let printed = parse_file(&shown).unwrap_or_else(|why| panic!("{shown}\nwas printed and is refused: {why}"));
    for (key, value) in printed {
        assert!(settings.get(key).is_none_or(|set| *set == value), "{key} was printed as {value:?}");
    }
}

/// A receipt log: figures that can be added up without an overflow.
pub fn csv_log(bytes: &[u8]) {
    let Ok(data) = parse(bytes, "log.csv") else { return };
    assert!(!data.invoices.is_empty());
    let mut last = 0;
    for invoice in &data.invoices {
        assert!(!invoice.lines.is_empty() && invoice.lines.len() <= mstore_protocol::limits::RECEIPT_LINES_MAX);
        assert!(invoice.at_s >= last, "receipts are in the order of their time");
        last = invoice.at_s;
        let total = invoice.lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.unit_price.checked_mul(line.units)?));
        assert!(total.is_some(), "a receipt that cannot be added up");
        assert!(invoice.lines.iter().all(|line| line.units > 0 && line.unit_price > 0 && line.product < data.catalogue.len()));
    }
}
