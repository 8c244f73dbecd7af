//! What operators read, and what a clock starts.
#![allow(clippy::unwrap_used)]

use mstore_protocol::{Code, Currency, LatencyHistogram, MerchantId, ServiceFigures, Timestamp};
use mstore_store::{ChangesError, LevelSpan, Listing, SourceWrite, StoreError};

use super::fixture::*;

const DAY_S: i64 = 24 * 3600;

pub async fn listings_are_paged(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q", "r"]).await;
    f.put_items("a", &["milk"]).await;
    for n in 1..=3 {
        f.deliver("a", "p", &n.to_string()).await;
    }
    f.accept_one("a", f.sale(1, "p", "1")).await;
    let all = async |listing: Listing| {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = f.store.list(listing.clone(), after.as_deref(), 2).await.unwrap();
            assert!(page.items.len() <= 2);
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return items;
            }
        }
    };
    let field = |items: &[serde_json::Value], name: &str| items.iter().map(|item| item[name].to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(field(&all(Listing::Merchants).await, "merchant"), r#""m""#);
    assert_eq!(field(&all(Listing::Branches(merchant())).await, "branch"), r#""a" "b""#);
    assert_eq!(field(&all(Listing::Products(merchant())).await, "id"), r#""p" "q" "r""#);
    assert_eq!(field(&all(Listing::Inventory(branch("a"))).await, "reorder_level"), r#""1""#);
    assert_eq!(field(&all(Listing::StockMoves(branch("a"))).await, "effect"), r#""-1" "3" "2" "1""#);
    assert_eq!(field(&all(Listing::Operations(branch("a"))).await, "status"), r#""accepted""#);
    assert_eq!(field(&all(Listing::Transactions(branch("a"))).await, "type"), r#""sale""#);
    let product: mstore_store::Product = serde_json::from_value(all(Listing::Products(merchant())).await.remove(0)).unwrap();
    assert_eq!(product, super::fixture::product("p"));
}

pub async fn transactions_leave_their_window(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let sold = f.accept("a", (1..=150).map(|n| f.sale(n, "p", "1")).collect()).await;
    f.clock.forward_s(6 * DAY_S);
    let young = f.accept_one("a", f.sale(151, "p", "1")).await;
    let cursor = f.head("a").await.cursor();
    f.clock.forward_s(DAY_S + 1);
    f.store.upkeep().await.unwrap();
    let answer = f.ask("a", Some(cursor), None).await.unwrap();
    assert_eq!(answer.lines.len(), 150, "an ordinary delete commit, not held");
    assert!(answer.lines.iter().all(|line| line.3.is_none()));
    assert!(f.row("a", "transaction", &young.id).await.is_some());
    let kept = f.store.list(Listing::Transactions(branch("a")), None, 1000).await.unwrap().items;
    assert_eq!(kept.len(), 151, "the shop keeps them");
    assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 0);
    let again = f.accept_one("a", f.sale(1, "p", "1")).await;
    assert_ne!(again.id, sold[0].id);
}

pub async fn a_merchant_may_have_a_window_of_its_own(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let window = |days: i64| {
        let sql = "INSERT INTO transaction_window VALUES ('m', {days}) ON CONFLICT (merchant_id) DO UPDATE SET days = excluded.days";
        (f.sql)(&sql.replace("{days}", &days.to_string()));
    };
    let old = f.accept("a", (1..=150).map(|n| f.sale(n, "p", "1")).collect()).await;
    f.clock.forward_s(2 * DAY_S);
    let young = f.accept_one("a", f.sale(151, "p", "1")).await;
    let on_devices = async || {
        f.settle().await;
        let has = async |id| f.row("a", "transaction", id).await.is_some();
        let both = (has(&old[0].id).await, has(&young.id).await);
        assert_eq!(f.store.sweep(None, 10_000).await.unwrap().differing, 0);
        both
    };
    assert_eq!(on_devices().await, (true, true), "seven days for everybody");
    window(1);
    assert_eq!(on_devices().await, (false, true), "shorter, and not held as a mass deletion");
    window(30);
    assert_eq!(on_devices().await, (true, true), "longer: what is young enough comes back");
    f.clock.forward_s(20 * DAY_S);
    assert_eq!(on_devices().await, (true, true), "longer than everybody's");
    f.clock.forward_s(9 * DAY_S);
    assert_eq!(on_devices().await, (false, true), "it moves on");
    (f.sql)("DELETE FROM transaction_window");
    assert_eq!(on_devices().await, (false, false), "everybody's again");
    let kept = f.store.list(Listing::Transactions(branch("a")), None, 1000).await.unwrap().items;
    assert_eq!(kept.len(), 151, "the shop keeps them");
}

pub async fn forgotten_deletions_raise_the_floor(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    let before = f.snapshot("a").await;
    f.write(SourceWrite::DeleteProduct { merchant: merchant(), id: "p".into() }).await.unwrap();
    let at_floor = f.head("a").await.cursor();
    f.clock.forward_s(31 * DAY_S);
    f.deliver("a", "q", "1").await;
    f.store.upkeep().await.unwrap();
    assert!(matches!(f.ask("a", Some(before.cursor()), None).await, Err(ChangesError::SnapshotRequired(_))));
    assert!(matches!(f.ask("a", None, Some(before.position(0))).await, Err(ChangesError::SnapshotRequired(_))));
    assert_eq!(f.ask("a", Some(at_floor), None).await.unwrap().ids(), ["q"]);
    assert_eq!(f.snapshot("a").await.ids(), ["q"]);
    assert!(f.alarms("restored_from_backup").await.is_empty());
}

pub async fn alarms_are_listed_newest_first(f: Fixture) {
    let f = f.shop().await;
    f.store.alarm("test", Some(&branch("a")), Some(&device("till")), "one").await.unwrap();
    f.store.alarm("test", None, None, "two").await.unwrap();
    let alarms = f.alarms("test").await;
    assert_eq!(alarms.iter().map(|alarm| alarm.detail.as_str()).collect::<Vec<_>>(), ["two", "one"]);
    assert_eq!((alarms[1].at, &alarms[1].device), (f.clock.now(), &Some(device("till"))));
}

pub async fn alarms_that_are_over_are_forgotten_in_time(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    f.store.alarm("open", Some(&branch("a")), None, "nobody has looked after it").await.unwrap();
    f.accept("a", vec![f.sale(1, "p", "1"), f.sale(3, "p", "1")]).await;
    f.accept_one("a", f.sale(2, "p", "1")).await;
    f.store.alarm("newest", None, None, "its number is given once").await.unwrap();
    let kept = async || (f.alarms("open").await.len(), f.alarms("device_seq_gap").await.len(), f.alarms("newest").await.len());
    f.clock.forward_s(89 * DAY_S);
    f.store.upkeep().await.unwrap();
    assert_eq!(kept().await, (1, 1, 1));
    f.clock.forward_s(2 * DAY_S);
    f.store.upkeep().await.unwrap();
    assert_eq!(kept().await, (1, 0, 1));
}

pub async fn gauges_count(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    let gauges = f.store.gauges().await.unwrap();
    assert_eq!((gauges.branches, gauges.mirror_rows, gauges.outbox, gauges.marks, gauges.held), (2, 4, 2, 0, 0));
}

pub async fn service_levels_add_up_and_are_forgotten_in_time(f: Fixture) {
    let f = f.shop().await;
    let other = MerchantId::parse("other").unwrap();
    let figures = |fresh_ms| ServiceFigures {
        fresh_ms,
        latency: LatencyHistogram { bounds_ms: vec![5], counts: vec![1, 0] },
        ..ServiceFigures::default()
    };
    let began = f.clock.now();
    f.store.add_levels([(merchant(), figures(1)), (other.clone(), figures(10))].into()).await.unwrap();
    f.store.add_levels([(merchant(), figures(2))].into()).await.unwrap();
    let read = async |merchant: Option<&MerchantId>, length_s: u32| {
        let since = Timestamp::from_ms(began.as_ms() - 3_600_000);
        f.store.levels(merchant, length_s, since).await.unwrap()
    };
    let fresh = |spans: &[LevelSpan]| spans.iter().map(|span| span.figures.fresh_ms).collect::<Vec<_>>();
    let mine = read(Some(&merchant()), 60).await;
    assert_eq!((fresh(&mine), mine[0].figures.latency.counts.clone()), (vec![3], vec![2, 0]));
    assert_eq!((mine[0].at.as_ms() % 60_000, began.as_ms() - mine[0].at.as_ms() < 60_000), (0, true));
    assert_eq!(read(None, 60).await.len(), 2);
    f.clock.forward_s(60);
    f.store.add_levels([(merchant(), figures(4))].into()).await.unwrap();
    assert_eq!(fresh(&read(Some(&merchant()), 60).await), [3, 4]);
    f.clock.forward_s(3 * 3_600);
    f.store.add_levels([(merchant(), figures(8))].into()).await.unwrap();
    assert_eq!(fresh(&read(Some(&merchant()), 60).await), [8], "minutes are kept for two hours");
    assert_eq!(fresh(&read(Some(&merchant()), 3_600).await).iter().sum::<u64>(), 15);
    f.clock.forward_s(32 * DAY_S);
    f.store.add_levels([(other.clone(), figures(16))].into()).await.unwrap();
    assert_eq!(fresh(&read(None, 3_600).await), [16], "hours for a month");
}

pub async fn a_closed_store_says_so(f: Fixture) {
    let f = f.shop().await;
    f.store.close().await.unwrap();
    assert!(matches!(f.put_merchant(|_| ()).await, Err(StoreError::Closed)));
    assert!(matches!(f.store.head(&branch("a")).await, Err(StoreError::Closed)));
    assert!(matches!(f.ask("a", None, None).await, Err(ChangesError::Store(StoreError::Closed))));
    assert!(matches!(f.store.close().await, Err(StoreError::Closed)));
}

pub async fn settings_of_a_merchant_are_checked(f: Fixture) {
    let f = f.shop().await;
    f.put_merchant(|m| m.currency = Currency::parse("JPY").unwrap()).await.unwrap();
    f.put_merchant(|m| m.currency = Currency::parse("IDR").unwrap()).await.unwrap();
    f.put_ids(&["p"]).await;
    let refused = f.put_merchant(|m| m.currency = Currency::parse("JPY").unwrap()).await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::Conflict, .. })), "prices would change their meaning");
    let orphan = SourceWrite::PutBranch { key: mstore_protocol::BranchKey::parse("none", "a").unwrap(), name: String::new() };
    assert!(matches!(f.write(orphan).await, Err(StoreError::Refused { code: Code::NotFound, .. })));
}
