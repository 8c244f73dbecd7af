//! Admin tokens, and the record of what was done with them.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use mstore_protocol::{BranchId, Code, MerchantId, Timestamp};
use mstore_store::{
    Act, AdminRole, AuditOf, BooksOf, DeadLetterAct, Decide, DeviceChange, FileToken, NewClaim, NewToken, Presented, StoreError,
    TokenChange, TokenRecord,
};
use serde_json::{Value, json};

use super::fixture::*;

fn new_token(name: &str, role: AdminRole, merchant: Option<&str>, hash: u8) -> NewToken {
    let merchant = merchant.map(|raw| MerchantId::parse(raw).unwrap());
    NewToken { name: name.into(), role, merchant, hash: [hash; 32], expires_at: None }
}

async fn add(f: &Fixture, name: &str, hash: u8) -> TokenRecord {
    f.store.add_token(new_token(name, AdminRole::Platform, None, hash), &by()).await.unwrap()
}

/// How the token with this hash stands.
async fn presented(f: &Fixture, hash: u8) -> Option<Presented> {
    f.store.presented([hash; 32], f.clock.now()).await.unwrap().map(|(_, how)| how)
}

async fn rotate(f: &Fixture, name: &str, hash: u8, old_until: Option<Timestamp>) -> TokenRecord {
    f.store.change_token(name, TokenChange::Rotate { hash: [hash; 32], old_until }, &by()).await.unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Code {
    match result {
        Err(StoreError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

async fn log(f: &Fixture, of: AuditOf) -> Vec<Value> {
    f.store.audit(of, None, 100).await.unwrap().items
}

/// Oldest first.
fn actions(log: &[Value]) -> Vec<&str> {
    log.iter().rev().map(|act| act["action"].as_str().unwrap()).collect()
}

pub async fn a_token_is_known_by_its_hash_and_nothing_else(f: Fixture) {
    let f = f.shop().await;
    let made = f.store.add_token(new_token("desk", AdminRole::Merchant, Some("m"), 1), &by()).await.unwrap();
    assert_eq!((made.role, made.created_at, made.rotating), (AdminRole::Merchant, f.clock.now(), false));
    let found = f.store.presented([1; 32], f.clock.now()).await.unwrap();
    assert_eq!(found, Some((made.clone(), Presented::Current)));
    assert_eq!(presented(&f, 2).await, None);
    assert_eq!(code(f.store.add_token(new_token("desk", AdminRole::Platform, None, 3), &by()).await), Code::AlreadyExists);
    assert_eq!(f.store.tokens(None).await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(f.store.tokens(Some(&merchant())).await.unwrap(), [made]);
    assert!(f.store.tokens(Some(&MerchantId::parse("n").unwrap())).await.unwrap().is_empty());
}

pub async fn a_token_expires_and_is_revoked(f: Fixture) {
    let f = f.shop().await;
    add(&f, "stays", 9).await;
    let expires_at = Some(f.clock.now().plus_ms(10_000));
    f.store.add_token(NewToken { expires_at, ..new_token("short", AdminRole::Platform, None, 1) }, &by()).await.unwrap();
    assert_eq!(presented(&f, 1).await, Some(Presented::Current));
    f.clock.forward_s(10);
    assert_eq!(presented(&f, 1).await, Some(Presented::Expired));
    let revoked = f.store.change_token("short", TokenChange::Revoke, &by()).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(f.clock.now()));
    assert_eq!(presented(&f, 1).await, None);
    assert_eq!(f.store.change_token("short", TokenChange::Revoke, &by()).await.unwrap(), revoked);
    let rotated = f.store.change_token("short", TokenChange::Rotate { hash: [2; 32], old_until: None }, &by()).await;
    assert_eq!(code(rotated), Code::Conflict);
    assert_eq!(code(f.store.change_token("nobody", TokenChange::Revoke, &by()).await), Code::NotFound);
}

pub async fn the_old_text_ends_at_the_first_use_of_the_new(f: Fixture) {
    let f = f.shop().await;
    add(&f, "desk", 1).await;
    assert!(rotate(&f, "desk", 2, None).await.rotating);
    assert_eq!((presented(&f, 1).await, presented(&f, 2).await), (Some(Presented::Old), Some(Presented::FirstUse)));
    assert!(!f.store.change_token("desk", TokenChange::RetireOld, &by()).await.unwrap().rotating);
    assert_eq!((presented(&f, 1).await, presented(&f, 2).await), (None, Some(Presented::Current)));
}

pub async fn the_old_text_may_end_at_a_time_instead(f: Fixture) {
    let f = f.shop().await;
    add(&f, "desk", 1).await;
    rotate(&f, "desk", 2, Some(f.clock.now().plus_ms(60_000))).await;
    assert_eq!((presented(&f, 1).await, presented(&f, 2).await), (Some(Presented::Old), Some(Presented::Current)));
    f.store.change_token("desk", TokenChange::RetireOld, &by()).await.unwrap();
    assert_eq!(presented(&f, 1).await, Some(Presented::Old), "its time is not over");
    f.clock.forward_s(60);
    assert_eq!((presented(&f, 1).await, presented(&f, 2).await), (None, Some(Presented::Current)));
}

pub async fn a_second_rotation_keeps_the_text_that_people_have(f: Fixture) {
    let f = f.shop().await;
    add(&f, "desk", 1).await;
    rotate(&f, "desk", 2, None).await;
    rotate(&f, "desk", 3, None).await;
    let all = (presented(&f, 1).await, presented(&f, 2).await, presented(&f, 3).await);
    assert_eq!(all, (Some(Presented::Old), None, Some(Presented::FirstUse)), "the answer with 2 was lost");
    f.store.change_token("desk", TokenChange::RetireOld, &by()).await.unwrap();
    rotate(&f, "desk", 4, None).await;
    assert_eq!((presented(&f, 1).await, presented(&f, 3).await), (None, Some(Presented::Old)));
}

pub async fn the_last_platform_token_stays(f: Fixture) {
    let f = f.shop().await;
    add(&f, "one", 1).await;
    f.store.add_token(new_token("reader", AdminRole::ReadOnly, None, 2), &by()).await.unwrap();
    let expires_at = Some(f.clock.now().plus_ms(1_000));
    f.store.add_token(NewToken { expires_at, ..new_token("guest", AdminRole::Platform, None, 3) }, &by()).await.unwrap();
    assert_eq!(code(f.store.change_token("one", TokenChange::Revoke, &by()).await), Code::Conflict);
    assert_eq!(presented(&f, 1).await, Some(Presented::Current));
    add(&f, "two", 4).await;
    f.store.change_token("one", TokenChange::Revoke, &by()).await.unwrap();
    assert_eq!(code(f.store.change_token("two", TokenChange::Revoke, &by()).await), Code::Conflict);
}

pub async fn a_token_is_of_a_merchant_that_exists(f: Fixture) {
    let f = f.shop().await;
    let nowhere = f.store.add_token(new_token("desk", AdminRole::Merchant, Some("nowhere"), 1), &by()).await;
    assert_eq!(code(nowhere), Code::NotFound);
    assert_eq!(presented(&f, 1).await, None);
}

pub async fn the_token_of_a_file_is_taken_up_once(f: Fixture) {
    let f = f.shop().await;
    let keep = async |hash: u8| f.store.keep_file_token("file", [hash; 32]).await.unwrap();
    assert_eq!((keep(1).await, keep(1).await), (FileToken::Kept, FileToken::Kept));
    assert_eq!(actions(&log(&f, AuditOf::default()).await), ["token.added"], "starting again is no act");
    assert_eq!(keep(2).await, FileToken::Replaced, "somebody wrote another one into the file");
    assert_eq!((presented(&f, 1).await, presented(&f, 2).await), (None, Some(Presented::Current)));
    rotate(&f, "file", 3, None).await;
    assert_eq!(keep(2).await, FileToken::Kept, "nobody has used the new one yet");
    f.store.change_token("file", TokenChange::RetireOld, &by()).await.unwrap();
    assert_eq!(keep(2).await, FileToken::Ended, "an old copy of the file brings nothing back");
    assert_eq!((presented(&f, 2).await, presented(&f, 3).await), (None, Some(Presented::Current)));
    add(&f, "other", 4).await;
    assert_eq!(keep(4).await, FileToken::Kept, "it is what it is under its own name");
    f.store.change_token("file", TokenChange::Revoke, &by()).await.unwrap();
    assert_eq!(keep(3).await, FileToken::Ended);
    assert_eq!(keep(5).await, FileToken::Replaced, "who has the server's files has the server");
    assert_eq!(presented(&f, 5).await, Some(Presented::Current));
}

fn claim(f: &Fixture, code: u8, at: &str) -> NewClaim {
    let expires_at = f.clock.now().plus_ms(900_000);
    NewClaim { code_hash: [code; 32], device: device("till"), key: branch(at), name: "Till".into(), expires_at, by: by() }
}

pub async fn every_act_on_a_device_is_in_the_log(f: Fixture) {
    let f = f.shop().await;
    f.store.claim(claim(&f, 1, "a")).await.unwrap();
    let till = Some("192.0.2.9".parse().unwrap());
    f.store.redeem([1; 32], "n", till, f.clock.now()).await.unwrap();
    f.store.redeem([1; 32], "n", till, f.clock.now()).await.unwrap();
    let to_b = DeviceChange::Move(BranchId::parse("b").unwrap());
    for change in [DeviceChange::Rotate, DeviceChange::RetireOld, DeviceChange::Report(json!({})), to_b, DeviceChange::Revoke] {
        f.store.change_device(&device("till"), change, &by(), f.clock.now()).await.unwrap();
    }
    for change in [DeviceChange::Revoke, DeviceChange::Lose, DeviceChange::Lose] {
        f.store.change_device(&device("till"), change, &by(), f.clock.now()).await.unwrap();
    }
    let acts = log(&f, AuditOf { device: Some(device("till")), ..AuditOf::default() }).await;
    let expected = ["device.claimed", "device.enrolled", "device.rotated", "device.moved", "device.revoked", "device.lost"];
    assert_eq!(actions(&acts), expected, "each once, reports not at all");
    let enrolled = &acts[4];
    assert_eq!((&enrolled["role"], &enrolled["actor"], &enrolled["address"]), (&json!("device"), &json!("till"), &json!("192.0.2.9")));
    let moved = &acts[2];
    assert_eq!((&moved["role"], &moved["actor"], &moved["address"]), (&json!("platform"), &json!("ops"), &json!("10.0.0.7")));
    assert_eq!((&moved["merchant"], &moved["branch"], &moved["detail"]), (&json!("m"), &json!("b"), &json!("from a to b")));
    assert_eq!(moved["at"], json!(f.clock.now().to_string()));
}

pub async fn acts_on_tokens_and_books_are_in_the_log(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    add(&f, "one", 1).await;
    add(&f, "two", 2).await;
    rotate(&f, "one", 3, None).await;
    f.store.change_token("one", TokenChange::RetireOld, &by()).await.unwrap();
    f.store.change_token("one", TokenChange::Revoke, &by()).await.unwrap();
    let broken = with(f.sale(1, "p", "2"), "total", json!({"amount": 1, "currency": "IDR"}));
    let id = mstore_protocol::OperationId::parse(broken["id"].as_str().unwrap()).unwrap();
    f.accept("a", vec![broken, f.sale(2, "p", "2")]).await;
    let discard = Decide { merchant: merchant(), id, act: DeadLetterAct::Discard, reason: "a test".into(), by: by() };
    f.store.decide(discard).await.unwrap();
    let books = BooksOf { merchant: merchant(), branch: None, settled_too: false };
    let n = f.store.oversells(books, None, 10).await.unwrap().items[0]["n"].as_u64().unwrap();
    f.store.settle_oversell(&merchant(), n, "counted", &by()).await.unwrap();
    let acts = log(&f, AuditOf::default()).await;
    let expected = ["token.added", "token.added", "token.rotated", "token.revoked", "dead_letter.discarded", "oversell.settled"];
    assert_eq!(actions(&acts), expected);
    assert_eq!((&acts[1]["subject"], &acts[1]["device"], &acts[1]["detail"]), (&json!(id.to_string()), &json!("till"), &json!("a test")));
    assert_eq!((&acts[0]["subject"], &acts[0]["branch"], &acts[0]["detail"]), (&json!(n.to_string()), &json!("a"), &json!("counted")));
    assert_eq!((&acts[3]["subject"], &acts[3]["merchant"]), (&json!("one"), &Value::Null));
}

pub async fn an_act_that_failed_is_not_in_the_log(f: Fixture) {
    let f = f.shop().await;
    let unknown = f.store.change_device(&device("none"), DeviceChange::Revoke, &by(), f.clock.now()).await;
    assert_eq!(code(unknown), Code::NotFound);
    f.store.claim(claim(&f, 1, "nowhere")).await.unwrap_err();
    add(&f, "one", 1).await;
    f.store.change_token("one", TokenChange::Revoke, &by()).await.unwrap_err();
    assert_eq!(actions(&log(&f, AuditOf::default()).await), ["token.added"]);
}

pub async fn the_log_is_read_by_page_and_by_part(f: Fixture) {
    let f = f.shop().await;
    let act = |action, merchant: Option<&str>| Act { action, merchant: merchant.map(str::to_owned), ..Act::default() };
    f.store.record_act(act("journal.handed_in", Some("m")), &by()).await.unwrap();
    f.clock.forward_s(60);
    let late = f.clock.now();
    f.store.record_act(act("journal.handed_in", Some("n")), &by()).await.unwrap();
    f.store.record_act(act("token.added", None), &mstore_store::By::server()).await.unwrap();
    let count = async |of: AuditOf| log(&f, of).await.len();
    assert_eq!(count(AuditOf { merchant: Some(merchant()), ..AuditOf::default() }).await, 1);
    assert_eq!(count(AuditOf { actor: Some("server".into()), ..AuditOf::default() }).await, 1);
    assert_eq!(count(AuditOf { action: Some("journal.handed_in".into()), ..AuditOf::default() }).await, 2);
    assert_eq!(count(AuditOf { since: Some(late), ..AuditOf::default() }).await, 2);
    let first = f.store.audit(AuditOf::default(), None, 2).await.unwrap();
    let rest = f.store.audit(AuditOf::default(), first.next.as_deref(), 2).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (2, 1, None));
}

pub async fn the_log_is_not_changed_and_ends_with_its_time(f: Fixture) {
    let f = f.shop().await;
    add(&f, "one", 1).await;
    let changed = catch_unwind(AssertUnwindSafe(|| (f.sql)("UPDATE audit SET actor = 'nobody'")));
    assert!(changed.is_err());
    f.clock.forward_s(399 * 86_400);
    add(&f, "two", 2).await;
    f.store.upkeep().await.unwrap();
    assert_eq!(log(&f, AuditOf::default()).await.len(), 2);
    f.clock.forward_s(2 * 86_400);
    f.store.upkeep().await.unwrap();
    assert_eq!(log(&f, AuditOf::default()).await[0]["subject"], "two");
    assert_eq!(log(&f, AuditOf::default()).await.len(), 1);
}
