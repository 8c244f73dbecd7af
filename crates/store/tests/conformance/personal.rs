//! Personal data reaches no device: our own API refuses it, foreign rows stay behind, operations become dead letters without it.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, VerdictStatus};
use mstore_store::{InventoryItem, Listing, Product, SourceWrite, StoreError};
use serde_json::json;

use super::fixture::*;

const CARD: &str = "4111 1111 1111 1111";
const EMAIL: &str = "budi@example.com";
const PHONE: &str = "+62 812 3456 789";

pub async fn our_own_writes_with_personal_data_are_refused(f: Fixture) {
    let f = f.shop().await;
    let named = |id: &str, name: &str| Product { name: name.into(), ..product(id) };
    let products = vec![named("fine", "Tea"), named("p", &format!("Tea for {EMAIL}"))];
    let refused = f.write(SourceWrite::PutProducts { merchant: merchant(), products }).await.unwrap_err();
    let StoreError::Refused { code, detail } = &refused else { panic!("{refused:?}") };
    assert_eq!(*code, Code::PersonalData);
    assert!(detail.contains("\"p\"") && detail.contains("\"name\"") && !detail.contains(EMAIL), "{detail}");
    let item = InventoryItem { id: "i".into(), name: PHONE.into(), unit: "kg".into(), reorder_level: q("0") };
    let refused = f.write(SourceWrite::PutInventory { key: branch("a"), items: vec![item] }).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { code: Code::PersonalData, .. }), "{refused:?}");
    assert!(f.snapshot("a").await.lines.is_empty(), "all or none");
    let coded = Product { barcode: Some("4111111111111111".into()), ..product("coded") };
    f.put(vec![coded]).await;
    assert!(f.row("a", "product", "coded").await.is_some(), "codes on goods are no cards");
}

pub async fn a_foreign_row_with_personal_data_stays_away_from_devices(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    (f.sql)(&format!("UPDATE product SET name = 'Paid with {CARD}' WHERE id = 'p'"));
    (f.sql)("UPDATE product SET name = 'Fine' WHERE id = 'q'");
    f.settle().await;
    assert_eq!(f.row("a", "product", "q").await.unwrap()["name"], "Fine", "the rest flows");
    assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "Product p", "devices keep what they have");
    let alarms = f.alarms("row_quarantined").await;
    assert!(alarms.iter().any(|alarm| alarm.detail.contains("\"name\"")), "{alarms:?}");
    assert!(!format!("{alarms:?}").contains("4111"), "{alarms:?}");
    f.store.sweep(None, 10_000).await.unwrap();
    assert_eq!(f.alarms("row_quarantined").await.len(), alarms.len(), "told once");
    (f.sql)("UPDATE product SET name = 'Better' WHERE id = 'p'");
    f.settle().await;
    assert_eq!(f.row("a", "product", "p").await.unwrap()["name"], "Better");
    assert!(f.alarms("row_quarantined").await.iter().all(|alarm| alarm.cleared_at.is_some()));
}

pub async fn an_operation_with_personal_data_is_a_dead_letter_without_it(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "10").await;
    let bad = with(f.act(1, "adjust", "product", "p", "-1"), "reason", json!(format!("taken by {EMAIL}")));
    let verdicts = f.accept("a", vec![bad.clone(), f.act(2, "adjust", "product", "p", "-2")]).await;
    assert_rejected(&verdicts[0], Code::PersonalData);
    assert_eq!(verdicts[1].status, VerdictStatus::Accepted, "it blocks no other");
    assert_eq!(f.stock("a", "p").await, "8");
    assert!(f.alarms("device_seq_gap").await.is_empty(), "it counts as present");
    assert_eq!(f.accept_one("a", bad).await, verdicts[0], "and is known again");
    let kept = f.store.list(Listing::Operations(branch("a")), None, 10).await.unwrap().items;
    assert!(!format!("{kept:?}{verdicts:?}").contains("budi"), "{kept:?}");
}
