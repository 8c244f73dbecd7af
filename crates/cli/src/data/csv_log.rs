//! The receipt log of a retailer as CSV: `seq, invoice_no, line_no, kind, stock_code, description, quantity, unit_price, occurred_at, country`.
//!
//! Nothing is assumed clean: codes in two letter cases are one product, lines without a price or with the wrong sign are left out.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use mstore_protocol::{Currency, limits::RECEIPT_LINES_MAX};
use serde::Deserialize;

use super::{CatalogueItem, Dataset, Invoice, InvoiceKind, InvoiceLine};
use crate::failure::Failure;

/// A pause longer than this is a closed shop; it is replayed as [`CLOSED_AS_S`].
const CLOSED_AFTER_S: i64 = 20 * 60;
const CLOSED_AS_S: i64 = 60;
/// Units on one line: ten times the largest order of the log.
const UNITS_MAX: i64 = 1_000_000;
/// Price of one unit, minor units.
const PRICE_MAX: i64 = 1_000_000_000;

#[derive(Deserialize)]
struct Line {
    invoice_no: String,
    kind: String,
    stock_code: String,
    description: String,
    quantity: i64,
    unit_price: String,
    occurred_at: String,
}

/// Reads a plain or gzipped log.
pub(super) fn read(path: &Path) -> Result<Dataset, Failure> {
    let fail = |why: String| Failure::usage(format!("--data {}: {why}", path.display())).next("leave --data out to use generated receipts");
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    parse(reader, &name).map_err(fail)
}

/// Reads the text of a log; `name` is what it is called in the figures.
pub(crate) fn parse(reader: impl Read, name: &str) -> Result<Dataset, String> {
    let mut log = Log::default();
    for record in csv::Reader::from_reader(reader).deserialize() {
        let line: Line = record.map_err(|error| error.to_string())?;
        log.push(&line)?;
    }
    log.finish(name).ok_or_else(|| "no sale in it".to_owned())
}

#[derive(Default)]
struct Log {
    products: BTreeMap<String, usize>,
    catalogue: Vec<CatalogueItem>,
    invoices: Vec<Invoice>,
    last_minute: Option<i64>,
    open_s: i64,
}

impl Log {
    fn push(&mut self, line: &Line) -> Result<(), String> {
        let kind = match (line.kind.as_str(), line.quantity.signum()) {
            ("sale", 1) => InvoiceKind::Sale,
            ("return", -1) => InvoiceKind::Return,
            _ => return Ok(()),
        };
        let units = line
            .quantity
            .checked_abs()
            .filter(|units| *units <= UNITS_MAX)
            .ok_or_else(|| format!("{} units on one line", line.quantity))?;
        let price = pence(&line.unit_price).ok_or_else(|| format!("{:?} is not a price", line.unit_price))?;
        let minute = minute_of(&line.occurred_at).ok_or_else(|| format!("{:?} is not a time", line.occurred_at))?;
        if price <= 0 {
            return Ok(());
        }
        let product = self.product(line, price);
        let starts_new = self.invoices.last().is_none_or(|last| last.number != line.invoice_no || last.lines.len() >= RECEIPT_LINES_MAX);
        if starts_new {
            let pause_s = self.last_minute.map_or(0, |last| (minute - last).max(0) * 60);
            self.open_s += if pause_s > CLOSED_AFTER_S { CLOSED_AS_S } else { pause_s };
            self.last_minute = Some(minute);
            let at_s = u64::try_from(self.open_s).unwrap_or(0);
            self.invoices.push(Invoice { number: line.invoice_no.clone(), at_s, kind, lines: Vec::new() });
        }
        let invoice = self.invoices.last_mut().expect("pushed just now or before");
        if invoice.kind == kind {
            invoice.lines.push(InvoiceLine { product, units, unit_price: price });
        }
        Ok(())
    }

    fn product(&mut self, line: &Line, price: i64) -> usize {
        let id = line.stock_code.trim().to_uppercase();
        *self.products.entry(id.clone()).or_insert_with(|| {
            let name = if line.description.trim().is_empty() { id.clone() } else { line.description.trim().to_owned() };
            self.catalogue.push(CatalogueItem { id, name, price });
            self.catalogue.len() - 1
        })
    }

    fn finish(mut self, name: &str) -> Option<Dataset> {
        self.invoices.retain(|invoice| !invoice.lines.is_empty());
        let source = format!("{name}: {} receipts, {} products", self.invoices.len(), self.catalogue.len());
        let currency = Currency::parse("GBP").ok()?;
        (!self.invoices.is_empty()).then_some(Dataset { source, currency, catalogue: self.catalogue, invoices: self.invoices })
    }
}

/// Pence from pounds with up to three decimals; the third is rounded half up. At most [`PRICE_MAX`].
fn pence(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(places.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: i64 = format!("{places:0<3}")[..3].parse().ok()?;
    let pence = (whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?.checked_add(5)?) / 10;
    (pence <= PRICE_MAX).then_some(sign * pence)
}

/// Minutes since an arbitrary origin, of `2010-12-01T08:26:00`; good for differences.
fn minute_of(text: &str) -> Option<i64> {
    let at = mstore_protocol::Timestamp::parse(&format!("{text}.000Z")).ok()?;
    Some(at.as_ms() / 60_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_a_log_that_is_not_clean() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "seq,invoice_no,line_no,kind,stock_code,description,quantity,unit_price,occurred_at,country\n\
            1,1,1,sale,85123a,HEART,6,2.55,2010-12-01T08:26:00,UK\n2,1,2,sale,85123A,HEART,1,2.555,2010-12-01T08:26:00,UK\n\
            3,2,1,sale,X,FREE,1,0.0,2010-12-01T08:28:00,UK\n4,3,1,sale,Y,LAMP,2,3,2010-12-02T08:28:00,UK\n\
            5,C4,1,return,Y,LAMP,-2,3.00,2010-12-02T08:29:00,UK\n6,5,1,adjustment,Y,check,-9,0,2010-12-02T08:30:00,UK\n";
        std::fs::write(file.path(), text).unwrap();
        let data = read(file.path()).unwrap();
        assert_eq!(data.catalogue.len(), 2, "two letter cases are one product, a free line makes none");
        let shape: Vec<_> = data.invoices.iter().map(|i| (i.number.as_str(), i.at_s, i.kind, i.lines.len())).collect();
        assert_eq!(
            shape,
            [("1", 0, InvoiceKind::Sale, 2), ("3", 60, InvoiceKind::Sale, 1), ("C4", 120, InvoiceKind::Return, 1)],
            "the night is skipped"
        );
        assert_eq!(data.invoices[0].lines[1].unit_price, 256);
    }

    #[test]
    fn prices_have_one_reading_and_a_limit() {
        for (text, expected) in [("2.55", Some(255)), ("2.555", Some(256)), ("-1", Some(-100)), ("0", Some(0)), ("3.14159", Some(314))] {
            assert_eq!(pence(text), expected, "{text}");
        }
        for bad in ["", "--5", "+5", "5.-5", "5.+1", "1e3", "10000001", "9223372036854775.807", "9223372036854775807", "5,0", "٣"] {
            assert_eq!(pence(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_quantity_that_no_shop_sells_is_refused() {
        let head = "seq,invoice_no,line_no,kind,stock_code,description,quantity,unit_price,occurred_at,country";
        for quantity in ["-9223372036854775808", "9223372036854775807", "1000001"] {
            let kind = if quantity.starts_with('-') { "return" } else { "sale" };
            let line = format!("{head}\n1,1,1,{kind},X,LAMP,{quantity},2.55,2010-12-01T08:26:00,UK\n");
            assert!(parse(line.as_bytes(), "x").unwrap_err().contains("units on one line"), "{quantity}");
        }
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a,b\n1,2\n").unwrap();
        assert!(read(file.path()).is_err());
        assert!(read(Path::new("/nowhere/x.csv.gz")).is_err());
    }
}
