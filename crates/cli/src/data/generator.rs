//! Made-up receipts of a neighbourhood shop, shaped like a real log: few lines on most, hundreds on some, a few products in most of them.
//!
//! The same seed gives the same receipts on every machine.

use mstore_protocol::Currency;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{CatalogueItem, Dataset, Invoice, InvoiceKind, InvoiceLine};

const KINDS: [&str; 20] = [
    "Kopi", "Teh", "Gula", "Beras", "Minyak", "Mie", "Susu", "Roti", "Sabun", "Sampo", "Kecap", "Sambal", "Garam", "Tepung", "Air",
    "Biskuit", "Cokelat", "Permen", "Telur", "Keripik",
];
const MAKES: [&str; 10] = ["Nusantara", "Melati", "Cap Gajah", "Sejahtera", "Bintang", "Sari", "Makmur", "Tiga Roda", "Mawar", "Lestari"];
const SIZES: [&str; 3] = ["kecil", "sedang", "besar"];
/// Mean shop seconds between two receipts.
const PAUSE_S: f64 = 75.0;
const LINES_MAX: usize = 400;

/// Receipts for `open_s` shop seconds, and one invoice of hundreds of lines among them.
pub(super) fn generate(seed: u64, open_s: u64) -> Dataset {
    let mut random = StdRng::seed_from_u64(seed);
    let catalogue = catalogue(&mut random);
    let mut invoices = Vec::new();
    let mut at_s = 0.0;
    while at_s <= open_s as f64 {
        at_s += -PAUSE_S * random.random_range(f64::EPSILON..1.0f64).ln();
        let kind = if random.random_bool(0.04) { InvoiceKind::Return } else { InvoiceKind::Sale };
        let wanted = if kind == InvoiceKind::Return { 1 } else { line_count(&mut random) };
        invoices.push(invoice(&mut random, &catalogue, invoices.len(), at_s, kind, wanted));
    }
    let middle = invoices.len() / 3;
    invoices[middle] = invoice(&mut random, &catalogue, middle, invoices[middle].at_s as f64, InvoiceKind::Sale, LINES_MAX);
    let source = format!("generated: {} receipts, {} products (seed {seed})", invoices.len(), catalogue.len());
    Dataset { source, currency: Currency::parse("IDR").expect("a code of ISO 4217"), catalogue, invoices }
}

fn catalogue(random: &mut StdRng) -> Vec<CatalogueItem> {
    let mut items = Vec::new();
    for (k, kind) in KINDS.iter().enumerate() {
        for make in MAKES {
            for (s, size) in SIZES.iter().enumerate() {
                // Whole hundreds of rupiah, in sen.
                let price = (random.random_range(15..250) + 40 * i64::try_from(s).unwrap_or(0)) * 100 * 100;
                items.push(CatalogueItem {
                    id: format!("SKU-{:05}", items.len() + 1),
                    name: format!("{kind} {make} {size} {}", k + 1),
                    price,
                });
            }
        }
    }
    items
}

/// Log-normal, median 9, 90th percentile about 44.
fn line_count(random: &mut StdRng) -> usize {
    let (a, b): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    let lines = (9.0f64.ln() + 1.24 * normal).exp();
    (1..=LINES_MAX).find(|n| *n as f64 >= lines).unwrap_or(LINES_MAX)
}

fn invoice(random: &mut StdRng, catalogue: &[CatalogueItem], number: usize, at_s: f64, kind: InvoiceKind, wanted: usize) -> Invoice {
    let lines = (0..wanted)
        .map(|_| {
            let product = popular(random, catalogue.len());
            InvoiceLine { product, units: random.random_range(1..=6), unit_price: catalogue[product].price }
        })
        .collect();
    Invoice {
        number: format!("{}{:06}", if kind == InvoiceKind::Return { "C" } else { "" }, number + 1),
        at_s: Some(at_s).map_or(0, seconds),
        kind,
        lines,
    }
}

fn seconds(at_s: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(at_s).map_or(0, |at| at.as_secs())
}

/// A tenth of the products makes about half of the lines.
fn popular(random: &mut StdRng, count: usize) -> usize {
    if random.random_bool(0.46) { random.random_range(0..count / 10) } else { random.random_range(0..count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_receipts_in_the_shape_of_a_real_log() {
        let data = generate(7, 36_000);
        assert_eq!(data, generate(7, 36_000));
        assert_ne!(data, generate(8, 36_000));
        let mut counts: Vec<_> = data.invoices.iter().map(|invoice| invoice.lines.len()).collect();
        counts.sort_unstable();
        let (median, p90, most) = (counts[counts.len() / 2], counts[counts.len() * 9 / 10], counts[counts.len() - 1]);
        assert!((6..=13).contains(&median) && (30..=65).contains(&p90) && most == LINES_MAX, "{median} {p90} {most}");
        assert!(data.invoices.is_sorted_by_key(|invoice| invoice.at_s));
    }
}
