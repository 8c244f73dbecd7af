//! A till on a terminal: `cargo run -p mstore-client --example till -- till.db http://127.0.0.1:8080 [CLAIM-CODE]`.
//!
//! It shows the stock, then sells one unit of whatever is typed (id or barcode), until the input ends.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::time::Duration;

use mstore_client::{Client, NewReceipt, Options, Quantity, Query};
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "till.db".into());
    let server = args.next().unwrap_or_else(|| "http://127.0.0.1:8080".into());
    let till = match args.next() {
        Some(code) => Client::enrol(&path, &server, &code, Options::default()).await?,
        None => Client::open(&path, Options::default()).await?,
    };
    till.watch_status().wait_for(|status| status.cursor.is_some()).await?;
    for product in till.products(&Query::default())? {
        println!("{:<16} {:<30} {:>8}", product.id, product.name, product.stock);
    }
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let found = till.product(line.trim())?.or(till.product_by_barcode(line.trim())?);
        let Some(product) = found else {
            println!("no product {line:?}; state {:?}", till.status().state);
            continue;
        };
        let sale = till.commit_sale(NewReceipt::of([(product.id.as_str(), Quantity::from_units(1))])).await?;
        let left = till.product(&product.id)?.map_or(Quantity::ZERO, |product| product.stock);
        println!("receipt {} is on disk; {left} left, {} waiting", sale.receipt_no.unwrap_or_default(), till.status().queue_depth);
    }
    if let Err(error) = till.drain(Duration::from_secs(10)).await {
        println!("{error}");
    }
    till.close().await;
    Ok(())
}
