//! Claims and devices.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{BranchId, BranchKey, Code};
use mstore_store::{DeviceChange, DeviceRecord, DeviceStatus, NewClaim, SourceWrite, StoreError};

use super::fixture::*;

fn claim(f: &Fixture, code: u8, till: &str, at: &str) -> NewClaim {
    let expires_at = f.clock.now().plus_ms(15 * 60 * 1000);
    NewClaim { code_hash: [code; 32], device: device(till), key: branch(at), name: "Till".into(), expires_at, by: by() }
}

async fn redeem(f: &Fixture, code: u8, nonce: &str) -> Result<DeviceRecord, StoreError> {
    f.store.redeem([code; 32], nonce, None, f.clock.now()).await
}

async fn enrolled(f: Fixture) -> Fixture {
    let f = f.shop().await;
    f.store.claim(claim(&f, 1, "till", "a")).await.unwrap();
    redeem(&f, 1, "n").await.unwrap();
    f
}

async fn change(f: &Fixture, change: DeviceChange) -> Result<DeviceRecord, StoreError> {
    f.store.change_device(&device("till"), change, &by(), f.clock.now()).await
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Code {
    match result {
        Err(StoreError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

pub async fn a_claim_is_redeemed_once_per_nonce(f: Fixture) {
    let f = f.shop().await;
    let record = f.store.claim(claim(&f, 1, "till", "a")).await.unwrap();
    assert_eq!((record.status, record.generation), (DeviceStatus::Claimed, 0));
    let record = redeem(&f, 1, "n").await.unwrap();
    assert_eq!((record.status, record.generation, &record.key), (DeviceStatus::Active, 1, &branch("a")));
    assert_eq!(redeem(&f, 1, "n").await.unwrap(), record, "a lost answer burns nothing");
    assert_eq!(code(redeem(&f, 1, "other").await), Code::ClaimRefused);
    assert_eq!(f.store.device(&device("till")).await.unwrap(), Some(record));
}

pub async fn an_expired_or_unknown_claim_is_refused(f: Fixture) {
    let f = f.shop().await;
    f.store.claim(claim(&f, 1, "till", "a")).await.unwrap();
    f.store.claim(claim(&f, 2, "till", "a")).await.unwrap();
    assert_eq!(code(redeem(&f, 1, "n").await), Code::ClaimRefused, "the next claim ends the one before");
    assert_eq!(code(redeem(&f, 9, "n").await), Code::ClaimRefused);
    f.clock.forward_s(901);
    assert_eq!(code(redeem(&f, 2, "n").await), Code::ClaimRefused);
    assert_eq!(code(f.store.claim(claim(&f, 3, "till", "nowhere")).await), Code::NotFound);
}

pub async fn a_device_of_another_merchant_is_not_taken_over(f: Fixture) {
    let f = enrolled(f).await;
    f.put_merchant(|m| m.merchant = mstore_protocol::MerchantId::parse("n").unwrap()).await.unwrap();
    let there = BranchKey::parse("n", "x").unwrap();
    f.write(SourceWrite::PutBranch { key: there.clone(), name: String::new() }).await.unwrap();
    let taken = f.store.claim(NewClaim { key: there, ..claim(&f, 2, "till", "a") }).await;
    assert_eq!(code(taken), Code::AlreadyExists);
}

pub async fn rotation_keeps_the_old_token_until_the_new_is_used(f: Fixture) {
    let f = enrolled(f).await;
    let rotated = change(&f, DeviceChange::Rotate).await.unwrap();
    assert_eq!((rotated.generation, rotated.previous_generation), (2, Some(1)));
    let again = change(&f, DeviceChange::Rotate).await.unwrap();
    assert_eq!((again.generation, again.previous_generation), (3, Some(1)), "the device still has the first");
    let used = change(&f, DeviceChange::RetireOld).await.unwrap();
    assert_eq!((used.generation, used.previous_generation), (3, None));
}

pub async fn a_revoked_device_comes_back_only_by_a_new_claim(f: Fixture) {
    let f = enrolled(f).await;
    f.clock.forward_s(5);
    let revoked = change(&f, DeviceChange::Revoke).await.unwrap();
    assert_eq!((revoked.status, revoked.revoked_at, revoked.generation), (DeviceStatus::Revoked, Some(f.clock.now()), 2));
    assert_eq!(change(&f, DeviceChange::Revoke).await.unwrap(), revoked);
    assert_eq!(code(change(&f, DeviceChange::Rotate).await), Code::DeviceRevoked);
    assert_eq!(code(redeem(&f, 1, "n").await), Code::ClaimRefused);
    f.store.claim(claim(&f, 2, "till", "b")).await.unwrap();
    let back = redeem(&f, 2, "n").await.unwrap();
    assert_eq!((back.status, back.generation, back.revoked_at), (DeviceStatus::Active, 3, None));
}

pub async fn a_moved_device_remembers_its_branches(f: Fixture) {
    let f = enrolled(f).await;
    let moved = change(&f, DeviceChange::Move(BranchId::parse("b").unwrap())).await.unwrap();
    assert_eq!((&moved.key, moved.branches.len()), (&branch("b"), 2));
    assert_eq!(code(change(&f, DeviceChange::Move(BranchId::parse("x").unwrap())).await), Code::NotFound);
}

pub async fn an_active_device_is_not_taken_to_another_branch_by_a_claim(f: Fixture) {
    let f = enrolled(f).await;
    let taken = f.store.claim(claim(&f, 2, "till", "b")).await;
    assert_eq!(code(taken), Code::DeviceActive);
    assert_eq!(code(redeem(&f, 2, "n").await), Code::ClaimRefused);
    assert_eq!(f.store.device(&device("till")).await.unwrap().unwrap().key, branch("a"));
    let lost_its_token = NewClaim { name: String::new(), ..claim(&f, 3, "till", "a") };
    f.store.claim(lost_its_token).await.unwrap();
    let record = redeem(&f, 3, "n").await.unwrap();
    assert_eq!((record.generation, record.name.as_str()), (2, "Till"), "no name given: it keeps its own");
}

pub async fn a_move_ends_open_claims(f: Fixture) {
    let f = enrolled(f).await;
    f.store.claim(claim(&f, 2, "till", "a")).await.unwrap();
    change(&f, DeviceChange::Move(BranchId::parse("b").unwrap())).await.unwrap();
    assert_eq!(code(redeem(&f, 2, "n").await), Code::ClaimRefused, "it would take the till back to a");
    f.store.claim(claim(&f, 3, "till", "b")).await.unwrap();
    assert_eq!(redeem(&f, 3, "n").await.unwrap().key, branch("b"));
}

pub async fn a_new_life_begins_without_a_report(f: Fixture) {
    let f = enrolled(f).await;
    change(&f, DeviceChange::Report(serde_json::json!({"state": "live", "queue_depth": 7}))).await.unwrap();
    let revoked = change(&f, DeviceChange::Revoke).await.unwrap();
    assert_eq!(revoked.report.unwrap()["queue_depth"], 7, "how much unsent work it had");
    f.store.claim(claim(&f, 2, "till", "a")).await.unwrap();
    let back = redeem(&f, 2, "n").await.unwrap();
    assert_eq!((back.report, back.reported_at), (None, None));
}

pub async fn reports_are_kept(f: Fixture) {
    let f = enrolled(f).await;
    let report = serde_json::json!({"state": "live", "queue_depth": 0});
    let record = change(&f, DeviceChange::Report(report.clone())).await.unwrap();
    assert_eq!((record.report, record.reported_at), (Some(report), Some(f.clock.now())));
    let unknown = f.store.change_device(&device("none"), DeviceChange::Rotate, &by(), f.clock.now()).await;
    assert_eq!(code(unknown), Code::NotFound);
}

pub async fn devices_are_listed_by_page(f: Fixture) {
    let f = enrolled(f).await;
    for (n, name) in [(2, "u"), (3, "v")] {
        f.store.claim(claim(&f, n, name, "b")).await.unwrap();
    }
    let names = async |key: Option<&BranchKey>, after, limit| {
        let devices = f.store.devices(key, after, limit).await.unwrap();
        devices.iter().map(|record| record.device.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, None, 2).await, ["till", "u"]);
    assert_eq!(names(None, Some("u"), 2).await, ["v"]);
    assert_eq!(names(Some(&branch("b")), None, 9).await, ["u", "v"]);
}

pub async fn a_lost_device_is_out_and_says_so_until_it_enrols_again(f: Fixture) {
    let f = enrolled(f).await;
    let lost = change(&f, DeviceChange::Lose).await.unwrap();
    assert_eq!((lost.status, lost.revoked_at, lost.lost_at), (DeviceStatus::Revoked, Some(f.clock.now()), Some(f.clock.now())));
    assert_eq!(change(&f, DeviceChange::Lose).await.unwrap(), lost);
    f.store.claim(claim(&f, 2, "till", "a")).await.unwrap();
    let back = redeem(&f, 2, "n").await.unwrap();
    assert_eq!((back.status, back.lost_at), (DeviceStatus::Active, None));
    change(&f, DeviceChange::Revoke).await.unwrap();
    let known_too_late = change(&f, DeviceChange::Lose).await.unwrap();
    assert_eq!(known_too_late.lost_at, Some(f.clock.now()));
    assert_eq!(known_too_late.generation, back.generation + 1, "it was out already");
}

pub async fn the_age_of_a_token_counts_from_its_making(f: Fixture) {
    let f = enrolled(f).await;
    let enrolled_at = f.clock.now();
    assert_eq!(f.store.device(&device("till")).await.unwrap().unwrap().token_at, Some(enrolled_at));
    f.clock.forward_s(60);
    change(&f, DeviceChange::Report(serde_json::json!({}))).await.unwrap();
    assert_eq!(change(&f, DeviceChange::Rotate).await.unwrap().token_at, Some(f.clock.now()));
}

pub async fn devices_of_a_merchant_are_listed_by_page(f: Fixture) {
    let f = enrolled(f).await;
    f.store.claim(claim(&f, 2, "u", "b")).await.unwrap();
    f.put_merchant(|m| m.merchant = mstore_protocol::MerchantId::parse("n").unwrap()).await.unwrap();
    let there = BranchKey::parse("n", "x").unwrap();
    f.write(SourceWrite::PutBranch { key: there.clone(), name: String::new() }).await.unwrap();
    f.store.claim(NewClaim { key: there, ..claim(&f, 3, "other", "a") }).await.unwrap();
    let names = async |of: &str, after, limit| {
        let devices = f.store.devices_of(&mstore_protocol::MerchantId::parse(of).unwrap(), after, limit).await.unwrap();
        devices.iter().map(|record| record.device.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names("m", None, 9).await, ["till", "u"]);
    assert_eq!(names("m", Some("till"), 9).await, ["u"]);
    assert_eq!(names("n", None, 9).await, ["other"]);
}

pub async fn the_journals_of_a_device_say_how_far_they_came(f: Fixture) {
    let f = enrolled(f).await;
    assert!(f.store.journals_of(&device("till")).await.unwrap().is_empty());
    f.put_ids(&["p"]).await;
    f.accept("a", vec![f.sale(7, "p", "1")]).await;
    let journals = f.store.journals_of(&device("till")).await.unwrap();
    assert_eq!((journals.len(), &*journals[0].journal_id, journals[0].device_seq, journals[0].at), (1, "j", 7, f.clock.now()));
}
