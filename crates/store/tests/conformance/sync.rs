//! Sequencing and what devices read.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use mstore_protocol::{Change, ChangeOp, Code, Collection, Cursor, Digest, Row, Seq, StockTarget, Tag, bucket_of};
use mstore_store::{ChangesError, MoveKind, OutboxMessage, Product, RecipeLine, SourceWrite, StoreError};

use super::fixture::*;

pub async fn a_write_becomes_a_commit(f: Fixture) {
    let f = f.shop().await;
    let before = f.head("a").await;
    let written = f.put_ids(&["p"]).await;
    let after = f.head("a").await;
    assert_eq!(after.seq, before.seq + 1);
    assert_eq!(written.seqs[&branch("a")], after.seq);
    assert_ne!((after.tag, after.digests), (before.tag, before.digests));
    let row = f.row("a", "product", "p").await.unwrap();
    assert_eq!(row["price"], serde_json::json!({"amount": 500, "currency": "IDR"}));
    assert_eq!((&row["stock"], &row["barcode"], row.get("recipe")), (&"0".into(), &serde_json::Value::Null, None));
    assert_eq!(row.as_object().unwrap().len(), 11, "{row}");
}

pub async fn a_write_without_a_difference_makes_no_commit(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let before = f.head("a").await;
    f.clock.forward_s(60);
    assert!(f.put_ids(&["p"]).await.seqs.is_empty());
    assert_eq!(f.head("a").await, before);
}

pub async fn a_stock_movement_is_a_patch_of_the_stock(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    f.clock.forward_s(60);
    f.deliver("a", "p", "41.5").await;
    let (_, frame) = f.frames().await.pop().unwrap();
    assert_eq!(frame.frame_type, "product.stock_updated");
    assert_eq!((frame.changes[0].op, frame.changes[0].row.as_ref().unwrap().get()), (ChangeOp::Patch, r#"{"stock":"41.5"}"#));
}

pub async fn changes_after_a_cursor_hold_only_what_changed(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    let cursor = f.snapshot("a").await.cursor();
    assert_eq!(f.ask("a", Some(cursor), None).await.unwrap().ids(), Vec::<&str>::new());
    f.deliver("a", "q", "1").await;
    let answer = f.ask("a", Some(cursor), None).await.unwrap();
    assert_eq!(answer.ids(), ["q"]);
    assert_eq!((answer.summary.from, answer.cursor()), (cursor.seq, f.head("a").await.cursor()));
    let nothing_yet = Cursor { seq: 0, tag: Tag::NONE, ..cursor };
    assert_eq!(f.ask("a", Some(nothing_yet), None).await.unwrap().lines.len(), 2);
}

pub async fn a_snapshot_is_ordered_and_sums_up_to_the_digest(f: Fixture) {
    let f = f.shop().await;
    f.put_items("a", &["z", "milk"]).await;
    f.put_ids(&["b", "a", "ä", "A"]).await;
    f.deliver("a", "a", "3").await;
    let answer = f.snapshot("a").await;
    let keys: Vec<_> = answer.lines.iter().map(|line| (line.0, line.1.clone(), line.2.clone())).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert_eq!(keys.len(), 6);
    assert_eq!(digests_of(&answer.lines), answer.summary.digests);
    assert_eq!(answer.summary.digests, f.head("a").await.digests);
}

pub async fn deletions_are_lines_of_a_catch_up(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    let cursor = f.snapshot("a").await.cursor();
    f.write(SourceWrite::DeleteProduct { merchant: merchant(), id: "p".into() }).await.unwrap();
    let answer = f.ask("a", Some(cursor), None).await.unwrap();
    assert_eq!((answer.ids(), &answer.lines[0].3), (vec!["p"], &None));
    assert_eq!(f.snapshot("a").await.ids(), ["q"]);
    let again = f.write(SourceWrite::DeleteProduct { merchant: merchant(), id: "p".into() }).await;
    assert!(matches!(again, Err(StoreError::Refused { code: Code::NotFound, .. })), "{again:?}");
}

pub async fn a_broken_answer_goes_on_where_it_stopped(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["a", "b", "c"]).await;
    f.deliver("a", "b", "1").await;
    let whole = f.snapshot("a").await;
    for cut in 0..whole.lines.len() {
        let rest = f.ask("a", None, Some(whole.position(cut))).await.unwrap();
        assert_eq!(rest.lines, whole.lines[cut + 1..]);
        assert_eq!(rest.cursor(), whole.cursor());
    }
}

pub async fn a_deletion_after_the_break_is_part_of_the_resumed_answer(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["a", "b", "c"]).await;
    let whole = f.snapshot("a").await;
    f.write(SourceWrite::DeleteProduct { merchant: merchant(), id: "a".into() }).await.unwrap();
    f.deliver("a", "b", "1").await;
    let rest = f.ask("a", None, Some(whole.position(1))).await.unwrap();
    assert_eq!(rest.ids(), ["c", "a", "b"]);
    assert_eq!(rest.lines[1].3, None);
}

pub async fn another_epoch_requires_a_snapshot(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let cursor = Cursor { epoch: mstore_protocol::Epoch::from_bits(1), ..f.head("a").await.cursor() };
    assert!(matches!(f.ask("a", Some(cursor), None).await, Err(ChangesError::SnapshotRequired(_))));
    assert!(f.alarms("restored_from_backup").await.is_empty());
}

pub async fn a_cursor_ahead_of_the_head_starts_a_new_epoch_once(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let head = f.head("a").await;
    let ahead = Cursor { seq: head.seq + 5, tag: Tag::from_bits(7), ..head.cursor() };
    let (first, second) = tokio::join!(f.ask("a", Some(ahead), None), f.ask("a", Some(ahead), None));
    let restored = [&first, &second].iter().filter(|answer| matches!(answer, Err(ChangesError::Restored { .. }))).count();
    let required = [&first, &second].iter().filter(|answer| matches!(answer, Err(ChangesError::SnapshotRequired(_)))).count();
    assert_eq!((restored, required), (1, 1));
    let now = f.head("a").await;
    assert_ne!(now.epoch, head.epoch);
    assert_eq!((now.seq, &now.digests), (head.seq, &head.digests));
    assert_eq!(f.alarms("restored_from_backup").await.len(), 1);
    assert!(matches!(f.ask("a", Some(head.cursor()), None).await, Err(ChangesError::SnapshotRequired(_))));
    let last = f.store.outbox(0, 1000).await.unwrap().pop().unwrap();
    assert_eq!((last.key, last.message), (branch("a"), OutboxMessage::HeadOnly), "devices are told at once");
    f.deliver("a", "p", "1").await;
    assert_eq!(f.ask("a", Some(now.cursor()), None).await.unwrap().ids(), ["p"], "the new epoch's cursors work");
}

pub async fn a_cursor_with_another_tag_is_not_remembered(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let cursor = f.head("a").await.cursor();
    f.deliver("a", "p", "1").await;
    assert!(f.ask("a", Some(cursor), None).await.is_ok());
    let other = Cursor { tag: Tag::from_bits(7), ..cursor };
    assert!(matches!(f.ask("a", Some(other), None).await, Err(ChangesError::Restored { .. })));
}

pub async fn a_broken_answer_of_a_lost_time_is_not_joined(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["a", "b"]).await;
    let cursor = f.head("a").await.cursor();
    f.deliver("a", "a", "1").await;
    let broken = f.ask("a", Some(cursor), None).await.unwrap().position(0);
    let other = Cursor { tag: Tag::from_bits(7), ..cursor };
    let answer = f.ask("a", Some(other), Some(broken.clone())).await;
    assert!(matches!(answer, Err(ChangesError::Restored { .. })), "its rows belong to another line of commits");
    let head = f.head("a").await;
    let of_this_epoch = Cursor { epoch: head.epoch, ..cursor };
    assert!(f.ask("a", Some(of_this_epoch), Some(broken)).await.is_err(), "and the new epoch knows no positions of the old");
}

pub async fn unknown_cursors_start_one_epoch_a_minute(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let unknown = |head: mstore_protocol::Head| Cursor { tag: Tag::from_bits(7), ..head.cursor() };
    for n in 1..=2 {
        let first = unknown(f.head("a").await);
        assert!(matches!(f.ask("a", Some(first), None).await, Err(ChangesError::Restored { .. })));
        let head = f.head("a").await;
        f.clock.forward_s(59);
        let again = f.ask("a", Some(unknown(head.clone())), None).await;
        assert!(matches!(again, Err(ChangesError::SnapshotRequired(_))));
        assert_eq!((f.head("a").await, f.alarms("restored_from_backup").await.len()), (head, n), "no new epoch");
        f.clock.forward_s(1);
    }
    let other = unknown(f.head("b").await);
    assert!(matches!(f.ask("b", Some(other), None).await, Err(ChangesError::Restored { .. })), "each branch counts for itself");
}

pub async fn a_cursor_of_nothing_starts_no_epoch(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let head = f.head("a").await;
    let never = Cursor { seq: 0, tag: Tag::from_bits(7), ..head.cursor() };
    assert!(matches!(f.ask("a", Some(never), None).await, Err(ChangesError::SnapshotRequired(_))));
    assert_eq!((f.head("a").await, f.alarms("restored_from_backup").await.len()), (head.clone(), 0));
    assert_eq!(f.ask("a", Some(Cursor { tag: Tag::NONE, ..never }), None).await.unwrap().ids(), ["p"]);
}

pub async fn every_branch_sees_the_catalogue(f: Fixture) {
    let f = f.shop().await;
    let written = f.put_ids(&["p"]).await;
    assert_eq!(written.seqs.keys().cloned().collect::<Vec<_>>(), [branch("a"), branch("b")]);
    let seq = f.head("b").await.seq;
    assert!(!f.deliver("a", "p", "1").await.seqs.contains_key(&branch("b")));
    assert_eq!((f.head("b").await.seq, f.stock("a", "p").await, f.stock("b", "p").await), (seq, "1".into(), "0".into()));
    let dearer = Product { price: money(600), ..product("p") };
    assert_eq!(f.put(vec![dearer]).await.seqs.len(), 2);
    assert_eq!(f.row("b", "product", "p").await.unwrap()["price"]["amount"], 600);
}

pub async fn a_new_branch_gets_the_catalogue(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    f.write(SourceWrite::PutBranch { key: branch("c"), name: "C".into() }).await.unwrap();
    assert_eq!(f.snapshot("c").await.ids(), ["p", "q"]);
    let heads = f.store.heads().await.unwrap();
    assert_eq!(heads.iter().map(|(key, _)| key.branch.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(f.head("c").await.digests.len(), 3);
}

pub async fn a_branch_price_is_seen_there_only(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let price = |price| SourceWrite::PutBranchPrice { key: branch("a"), product_id: "p".into(), price };
    f.clock.forward_s(60);
    let written = f.write(price(Some(money(450)))).await.unwrap();
    assert_eq!(written.seqs.keys().collect::<Vec<_>>(), [&branch("a")]);
    let row = f.row("a", "product", "p").await.unwrap();
    assert_eq!((&row["price"]["amount"], &row["updated_at"]), (&450.into(), &f.clock.now().to_string().into()));
    assert_eq!(f.row("b", "product", "p").await.unwrap()["price"]["amount"], 500);
    f.write(price(None)).await.unwrap();
    assert_eq!(f.row("a", "product", "p").await.unwrap()["price"]["amount"], 500);
}

pub async fn a_bulk_import_is_one_commit_without_frames(f: Fixture) {
    let f = f.shop().await;
    let before = f.head("a").await.seq;
    f.put((0..600).map(|i| product(&format!("p{i:04}"))).collect()).await;
    assert_eq!(f.head("a").await.seq, before + 1);
    let entries = f.store.outbox(0, 1000).await.unwrap();
    let of_a: Vec<_> = entries.into_iter().filter(|entry| entry.key == branch("a")).map(|entry| entry.message).collect();
    assert_eq!(of_a, [OutboxMessage::HeadOnly]);
    let answer = f.snapshot("a").await;
    assert_eq!(answer.lines.len(), 600);
    assert_eq!(digests_of(&answer.lines), answer.summary.digests);
}

pub async fn frames_rebuild_the_rows(f: Fixture) {
    let f = f.shop().await;
    f.put_items("a", &["milk"]).await;
    f.put_ids(&["p", "q", "r"]).await;
    f.deliver("a", "p", "5").await;
    f.write(SourceWrite::DeleteProduct { merchant: merchant(), id: "r".into() }).await.unwrap();
    f.accept_one("a", f.sale(1, "p", "2")).await;
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let mut last: BTreeMap<String, Seq> = BTreeMap::new();
    for (_, frame) in f.frames().await.into_iter().filter(|(at, _)| at == "a") {
        let name = frame.frame_type.split('.').next().unwrap().to_owned();
        assert_eq!(frame.prev, last.insert(name.clone(), frame.seq).unwrap_or(0));
        for Change { op, id, .. } in &frame.changes {
            let change = frame.changes.iter().find(|change| change.id == *id).unwrap();
            let key = (name.clone(), id.clone());
            match op {
                ChangeOp::Put => drop(rows.insert(key, change.row().unwrap())),
                ChangeOp::Patch => {
                    let row = rows[&key].patched(&change.patch().unwrap()).unwrap();
                    rows.insert(key, row);
                }
                ChangeOp::Delete => drop(rows.remove(&key).unwrap()),
            }
        }
    }
    let snapshot = f.snapshot("a").await.lines;
    let expect: BTreeMap<_, _> =
        snapshot.into_iter().map(|(_, collection, id, row)| ((collection, id), Row::parse(&row.unwrap()).unwrap())).collect();
    assert_eq!(rows, expect);
}

pub async fn fresh_entries_come_in_order_and_acknowledged_ones_go(f: Fixture) {
    let f = f.shop().await;
    assert!(f.store.outbox(0, 10).await.unwrap().is_empty());
    f.put_ids(&["p"]).await;
    f.deliver("a", "p", "1").await;
    let fresh = f.store.take_fresh();
    assert_eq!(fresh.iter().map(|entry| entry.key.branch.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert!(fresh.is_sorted_by_key(|entry| entry.id));
    assert!(f.store.take_fresh().is_empty());
    assert_eq!(f.store.outbox(0, 10).await.unwrap(), fresh, "durable until acknowledged");
    f.store.acknowledged(fresh[..2].iter().map(|entry| entry.id).collect()).await.unwrap();
    assert_eq!(f.store.outbox(0, 10).await.unwrap(), fresh[2..]);
    f.deliver("a", "p", "1").await;
    assert_eq!(f.store.gauges().await.unwrap().outbox, 2);
    f.store.outbox_wake().notified().await;
}

pub async fn an_overflow_of_fresh_entries_is_read_from_the_table(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let mut seen: Vec<u64> = f.store.take_fresh().iter().map(|entry| entry.id).collect();
    for _ in 0..5_000 / 250 {
        let deliveries = (0..250).map(|_| f.deliver("a", "p", "1"));
        futures_join(deliveries).await;
    }
    // Whatever came in memory and from the table, in that order, is dense.
    loop {
        let mut more: Vec<u64> = f.store.take_fresh().iter().map(|entry| entry.id).collect();
        if more.is_empty() {
            more = f.store.outbox(seen.last().copied().unwrap_or(0), 100).await.unwrap().iter().map(|entry| entry.id).collect();
        }
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    // Nothing was acknowledged, so the table still has the first.
    let first = f.store.outbox(0, 1).await.unwrap()[0].id;
    assert!(seen.iter().zip(first..).all(|(id, expect)| *id == expect), "{seen:?}");
    f.deliver("a", "p", "1").await;
    assert_eq!(f.store.take_fresh().len(), 1, "memory has taken over again");
}

async fn futures_join<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

pub async fn sub_digests_add_up(f: Fixture) {
    let f = f.shop().await;
    f.put((0..40).map(|i| product(&format!("p{i}"))).collect()).await;
    let (head, subs) = f.store.digests(&branch("a"), &Collection::product()).await.unwrap();
    let hashes = f.snapshot("a").await.lines.into_iter().map(|line| Row::parse(&line.3.unwrap()).unwrap());
    let mut expect = [Digest::EMPTY; 256];
    for row in hashes {
        let sub = &mut expect[usize::from(bucket_of(row.id()))];
        *sub = sub.with(row.hash(&Collection::product()));
    }
    assert_eq!(*subs, expect);
    assert_eq!(head, f.head("a").await);
}

pub async fn rows_of_a_range_are_those_of_the_sub_digest(f: Fixture) {
    let f = f.shop().await;
    f.put((0..40).map(|i| product(&format!("p{i}"))).collect()).await;
    let ranges = [bucket_of("p7"), bucket_of("p8")];
    let (_, rows) = f.store.rows(&branch("a"), &Collection::product(), &ranges).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|(text, _)| Row::parse(text).unwrap().id().to_owned()).collect();
    assert!(ids.iter().all(|id| ranges.contains(&bucket_of(id))));
    assert!(ids.contains(&"p7".into()) && ids.contains(&"p8".into()));
    assert!(f.store.rows(&branch("a"), &Collection::product(), &[]).await.unwrap().1.is_empty());
}

pub async fn an_unknown_branch_has_no_changes(f: Fixture) {
    let f = f.shop().await;
    assert!(matches!(f.ask("nowhere", None, None).await, Err(ChangesError::UnknownBranch(_))));
    assert_eq!(f.store.head(&branch("nowhere")).await.unwrap(), None);
    let digests = f.store.digests(&branch("nowhere"), &Collection::product()).await;
    assert!(matches!(digests, Err(StoreError::Refused { code: Code::NotFound, .. })));
}

pub async fn a_recipe_is_part_of_the_row(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["latte"]).await;
    let lines =
        |lines: &[(&str, &str)]| lines.iter().map(|(id, n)| RecipeLine { item_id: (*id).into(), quantity: q(n) }).collect::<Vec<_>>();
    let put =
        |product: &str, of: &[(&str, &str)]| SourceWrite::PutRecipe { merchant: merchant(), product_id: product.into(), lines: lines(of) };
    f.clock.forward_s(60);
    let written = f.write(put("latte", &[("milk", "0.2"), ("beans", "0.018")])).await.unwrap();
    assert_eq!(written.seqs.len(), 2);
    let row = f.row("b", "product", "latte").await.unwrap();
    assert_eq!(row["recipe"], serde_json::json!([{"item_id": "beans", "quantity": "0.018"}, {"item_id": "milk", "quantity": "0.2"}]));
    assert_eq!(row["updated_at"], f.clock.now().to_string());
    assert!(f.write(put("latte", &[("milk", "0.2"), ("beans", "0.018")])).await.unwrap().seqs.is_empty());
    f.write(put("latte", &[])).await.unwrap();
    assert_eq!(f.row("a", "product", "latte").await.unwrap().get("recipe"), None);
    let unknown = f.write(put("none", &[("milk", "1")])).await;
    assert!(matches!(unknown, Err(StoreError::Refused { code: Code::UnknownProduct, .. })));
}

pub async fn a_price_in_another_currency_is_refused(f: Fixture) {
    let f = f.shop().await;
    let dollars = mstore_protocol::Money::new(1, mstore_protocol::Currency::parse("USD").unwrap()).unwrap();
    let products = vec![product("ok"), Product { price: dollars, ..product("p") }];
    let refused = f.write(SourceWrite::PutProducts { merchant: merchant(), products }).await;
    assert!(matches!(refused, Err(StoreError::Refused { code: Code::CurrencyDiffers, .. })));
    assert!(f.snapshot("a").await.lines.is_empty(), "all or none");
}

pub async fn concurrent_writers_get_dense_numbers(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p", "q"]).await;
    let before = f.head("a").await.seq;
    futures_join((0..200).map(|i| f.deliver("a", if i % 2 == 0 { "p" } else { "q" }, "1"))).await;
    assert_eq!((f.stock("a", "p").await, f.stock("a", "q").await), ("100".into(), "100".into()));
    let seqs: std::collections::BTreeSet<Seq> = f.frames().await.iter().filter(|(at, _)| at == "a").map(|(_, frame)| frame.seq).collect();
    let head = f.head("a").await;
    assert!(head.seq > before);
    assert!(seqs.into_iter().eq(1..=head.seq), "every commit has its frame, none is missing");
    let answer = f.snapshot("a").await;
    assert_eq!(digests_of(&answer.lines), head.digests);
}

pub async fn a_refused_write_leaves_its_neighbours_alone(f: Fixture) {
    let f = f.shop().await;
    f.put_ids(&["p"]).await;
    let outcomes = std::sync::Mutex::new(Vec::new());
    futures_join((0..100).map(|i| {
        let (f, outcomes) = (&f, &outcomes);
        async move {
            let item = if i % 2 == 0 { "p" } else { "none" };
            let outcome = f.stock_move("a", MoveKind::Delta, StockTarget::Product, item, "1").await;
            outcomes.lock().unwrap().push((item, outcome));
        }
    }))
    .await;
    for (item, outcome) in outcomes.into_inner().unwrap() {
        match outcome {
            Ok(written) => assert!(item == "p" && written.seqs.len() == 1),
            Err(error) => assert!(matches!((item, error), ("none", StoreError::Refused { code: Code::UnknownProduct, .. }))),
        }
    }
    assert_eq!(f.stock("a", "p").await, "50");
}

pub async fn the_sweep_of_a_true_mirror_finds_nothing(f: Fixture) {
    let f = f.shop().await;
    f.put_items("a", &["milk"]).await;
    f.put((0..30).map(|i| product(&format!("p{i}"))).collect()).await;
    f.stock_move("a", MoveKind::Delta, StockTarget::Inventory, "milk", "2").await.unwrap();
    f.accept_one("a", f.sale(1, "p3", "1")).await;
    let (mut from, mut compared, mut slices) = (None, 0, 0);
    loop {
        let report = f.store.sweep(from, 7).await.unwrap();
        assert_eq!((report.differing, report.mended), (0, 0));
        compared += report.compared;
        slices += 1;
        from = report.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(compared, 30 + 30 + 1 + 1);
    assert!(slices >= 62 / 7, "{slices}");
}
