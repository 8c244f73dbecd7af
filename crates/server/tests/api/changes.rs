//! `/changes`, `/head`, `/digests`, `/rows`: what devices read.

use std::{collections::BTreeMap, io::Read as _};

use mstore_protocol::{ChangeLine, ChangesEnd, ChangesFirst, Code, Collection, Digest, LineOp, Row, bucket_of};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::shop::{Answer, Shop, Till, sale};

/// An answer's lines.
struct Lines {
    first: ChangesFirst,
    rows: Vec<(Collection, String, LineOp, Option<Row>, String)>,
    end: ChangesEnd,
}

fn parse(text: &str) -> Lines {
    let lines: Vec<&str> = text.lines().collect();
    let (first, end) = (serde_json::from_str(lines[0]).unwrap(), serde_json::from_str(lines[lines.len() - 1]).unwrap());
    let rows = lines[1..lines.len() - 1].iter().map(|line| {
        let line: ChangeLine<'_> = serde_json::from_str(line).unwrap();
        let row = line.row.map(|row| Row::parse(row.get()).unwrap());
        (Collection::parse(&line.c).unwrap(), line.id.to_string(), line.op, row, line.p.to_string())
    });
    Lines { first, rows: rows.collect(), end }
}

async fn changes(shop: &Shop, till: &Till, query: &str, accept: &str) -> Answer {
    let url = shop.url(&format!("/v1/m1/{}/changes{query}", till.enrolment.branch));
    let request = shop.http.get(url).bearer_auth(till.bearer()).header(header::ACCEPT_ENCODING, accept);
    Answer::of(request.send().await.unwrap()).await
}

async fn lines(shop: &Shop, till: &Till, query: &str) -> Lines {
    let answer = changes(shop, till, query, "identity").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    parse(std::str::from_utf8(&answer.body).unwrap())
}

fn digests(rows: &BTreeMap<(Collection, String), Row>) -> BTreeMap<Collection, Digest> {
    let mut digests: BTreeMap<Collection, Digest> = Collection::built_in().into_iter().map(|c| (c, Digest::EMPTY)).collect();
    for ((collection, _), row) in rows {
        let digest = digests.entry(collection.clone()).or_default();
        *digest = digest.with(row.hash(collection));
    }
    digests
}

fn apply(held: &mut BTreeMap<(Collection, String), Row>, lines: Lines) -> ChangesEnd {
    for (collection, id, op, row, _) in lines.rows {
        match op {
            LineOp::Put => drop(held.insert((collection, id), row.unwrap())),
            LineOp::Delete => drop(held.remove(&(collection, id))),
        }
    }
    lines.end
}

#[tokio::test]
async fn a_snapshot_and_a_catch_up_lead_to_the_heads_digests() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let snapshot = lines(&shop, &till, "").await;
    assert_eq!((snapshot.first.from, snapshot.first.rows, snapshot.first.ops.len()), (0, 2, 0));
    let mut held = BTreeMap::new();
    let end = apply(&mut held, snapshot);
    assert_eq!(end.digests, shop.head(&till).await.digests);
    assert_eq!(digests(&held), end.digests);

    let after = shop.cursor(&till).await;
    shop.put_product("tea", 11_000).await;
    shop.admin(Method::DELETE, "/merchants/m1/products/cake", Value::Null).await.ok();
    let sold = sale(1, "tea", "2");
    assert_eq!(shop.sell(&till, "b1", std::slice::from_ref(&sold)).await.ok()["verdicts"][0]["status"], "accepted");
    let catch_up = lines(&shop, &till, &format!("?after={after}")).await;
    assert_eq!(catch_up.first.from, after.seq);
    assert_eq!(catch_up.first.ops.iter().map(ToString::to_string).collect::<Vec<_>>(), [sold["id"].as_str().unwrap()]);
    let end = apply(&mut held, catch_up);
    assert_eq!(digests(&held), end.digests);
    assert_eq!(end.digests, shop.head(&till).await.digests);
    assert!(!held.contains_key(&(Collection::product(), "cake".into())));
}

#[tokio::test]
async fn the_head_is_answered_with_304_and_its_cursor() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let cursor = shop.cursor(&till).await;
    let etag = format!("\"{cursor}\"");
    let unchanged = changes(&shop, &till, &format!("?after={cursor}"), "zstd").await;
    assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.len()), (StatusCode::NOT_MODIFIED, etag.as_str(), 0));
    let request = shop.http.get(shop.url("/v1/m1/b1/changes")).bearer_auth(till.bearer()).header(header::IF_NONE_MATCH, &etag);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    shop.put_product("tea", 12_000).await;
    let changed = changes(&shop, &till, &format!("?after={cursor}"), "identity").await;
    assert_eq!((changed.status, changed.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
    assert_eq!(changed.header("etag"), format!("\"{}\"", shop.cursor(&till).await));
}

#[tokio::test]
async fn an_idle_poll_costs_at_most_300_bytes() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let cursor = shop.cursor(&till).await;
    let request = format!(
        "GET /v1/m1/b1/changes?after={cursor} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        shop.running.http_addr(),
        till.bearer()
    );
    let mut stream = TcpStream::connect(shop.running.http_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = vec![0; 1_000];
    let read = stream.read(&mut response).await.unwrap();
    let response = String::from_utf8_lossy(&response[..read]).into_owned();
    assert!(response.starts_with("HTTP/1.1 304 ") && response.ends_with("\r\n\r\n"), "{response}");
    assert!(request.len() + read <= 300, "{} + {read}\n{response}", request.len());
}

#[tokio::test]
async fn cursors_that_lead_nowhere_need_a_snapshot() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    let head = shop.head(&till).await;
    let foreign = "0000000000000001:1:0000000000000001".to_owned();
    changes(&shop, &till, &format!("?after={foreign}"), "").await.problem(Code::SnapshotRequired);

    // Ahead of the head: this server was restored from a backup. A new epoch, an alarm, and no second alarm for the next device.
    let ahead = format!("{}:{}:{}", head.epoch, head.seq + 5, head.tag);
    for _ in 0..2 {
        changes(&shop, &till, &format!("?after={ahead}"), "").await.problem(Code::SnapshotRequired);
    }
    assert_ne!(shop.head(&till).await.epoch, head.epoch);
    let alarms = shop.admin(Method::GET, "/alarms", Value::Null).await.ok();
    let restored = alarms["items"].as_array().unwrap().iter().filter(|alarm| alarm["kind"] == "restored_from_backup");
    assert_eq!(restored.count(), 1);
    let snapshot = lines(&shop, &till, "").await;
    assert_eq!((snapshot.first.epoch, snapshot.first.rows), (shop.head(&till).await.epoch, 2));
}

#[tokio::test]
async fn a_snapshot_is_compressed_once_and_shared_by_all_but_its_first_line() {
    let shop = Shop::open().await;
    shop.import(2_000).await;
    let (a, b) = (shop.enrol("till-a", "b1").await, shop.enrol("till-b", "b1").await);
    assert_eq!(shop.sell(&a, "b1", &[sale(1, "tea", "1")]).await.ok()["verdicts"][0]["status"], "accepted");
    let plain = changes(&shop, &a, "", "identity").await;
    let (of_a, of_b) = (changes(&shop, &a, "", "zstd").await, changes(&shop, &b, "", "zstd").await);
    assert_eq!(of_a.header("content-encoding"), "zstd");
    assert_eq!(of_a.header("vary"), "accept-encoding");
    let text = |answer: &Answer| String::from_utf8(zstd::stream::decode_all(&answer.body[..]).unwrap()).unwrap();
    let (text_a, text_b) = (text(&of_a), text(&of_b));
    let (first_a, rest_a) = text_a.split_once('\n').unwrap();
    let (first_b, rest_b) = text_b.split_once('\n').unwrap();
    assert_ne!(first_a, first_b, "a sold something, b did not");
    assert_eq!(rest_a, rest_b);
    // The compressed bytes after the first frame are the same ones.
    let shared = of_a.body.len().min(of_b.body.len()) - 200;
    assert_eq!(of_a.body[of_a.body.len() - shared..], of_b.body[of_b.body.len() - shared..]);
    assert_eq!(text_a.as_bytes(), plain.body);
    assert_eq!(parse(&text_a).rows.len(), 2_003);

    let gzip = changes(&shop, &a, "", "gzip").await;
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut unzipped).unwrap();
    assert_eq!((gzip.header("content-encoding"), unzipped), ("gzip", plain.body));
}

#[tokio::test]
async fn ordinary_http_clients_read_both_codings() {
    let shop = Shop::open().await;
    shop.import(2_000).await;
    let till = shop.enrol("till-1", "b1").await;
    let plain = changes(&shop, &till, "", "identity").await.body;
    for client in [reqwest::Client::builder().no_zstd(), reqwest::Client::builder().no_gzip()] {
        let client = client.timeout(crate::shop::DEADLINE).build().unwrap();
        let response = client.get(shop.url("/v1/m1/b1/changes")).bearer_auth(till.bearer()).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap(), plain);
    }
}

#[tokio::test]
async fn a_broken_answer_is_resumed_where_it_stopped() {
    let shop = Shop::open().await;
    shop.import(50).await;
    let till = shop.enrol("till-1", "b1").await;
    let whole = lines(&shop, &till, "").await;
    let mut held = BTreeMap::new();
    let mut received = whole.rows;
    let position = received[20].4.clone();
    received.truncate(21);
    let (first, last) = (received[0].1.clone(), received[20].1.clone());
    apply(&mut held, Lines { rows: received, first: whole.first, end: whole.end });
    // Meanwhile a row that was received goes away, another one changes.
    shop.admin(Method::DELETE, &format!("/merchants/m1/products/{first}"), Value::Null).await.ok();
    shop.put_product(&last, 99_000).await;
    let url = reqwest::Url::parse_with_params("http://x/", [("resume", &position)]).unwrap();
    let rest = lines(&shop, &till, &format!("?{}", url.query().unwrap())).await;
    let end = apply(&mut held, rest);
    assert_eq!(digests(&held), end.digests);
    assert_eq!(end.digests, shop.head(&till).await.digests);

    changes(&shop, &till, "?resume=nonsense", "").await.problem(Code::MalformedRequest);
    changes(&shop, &till, "?resume=0000000000000001.9.3.product.tea", "").await.problem(Code::SnapshotRequired);
}

#[tokio::test]
async fn a_difference_is_found_and_fetched_by_range() {
    let shop = Shop::open().await;
    shop.import(300).await;
    let till = shop.enrol("till-1", "b1").await;
    let head = shop.head(&till).await;
    let answer = shop.get(&till, "/v1/m1/b1/digests?collection=product").await.ok();
    let subs = answer["sub_digests"].as_array().unwrap();
    assert_eq!((subs.len(), answer["seq"].as_u64().unwrap()), (256, head.seq));
    let range = bucket_of("tea");
    let rows = shop.get(&till, &format!("/v1/m1/b1/rows?collection=product&range={range}")).await.ok();
    let mut sum = Digest::EMPTY;
    for row in rows["rows"].as_array().unwrap() {
        let text = row["row"].to_string();
        let row = Row::parse(&text).unwrap();
        assert_eq!(bucket_of(row.id()), range);
        sum = sum.with(row.hash(&Collection::product()));
    }
    assert_eq!(sum.to_string(), subs[usize::from(range)].as_str().unwrap());
    let all = (0..=255).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let rows = shop.get(&till, &format!("/v1/m1/b1/rows?collection=product&range={all}")).await.ok();
    assert_eq!(rows["rows"].as_array().unwrap().len(), 302);
    shop.get(&till, "/v1/m1/b1/rows?collection=product&range=256").await.problem(Code::MalformedRequest);
    shop.get(&till, "/v1/m1/b1/rows?collection=product").await.problem(Code::MalformedRequest);
}

#[tokio::test]
async fn a_device_reads_its_own_branch_only() {
    let shop = Shop::open().await;
    let till = shop.enrol("till-1", "b1").await;
    for path in ["changes", "head", "digests?collection=product", "rows?collection=product&range=0"] {
        let own = shop.get(&till, &format!("/v1/m1/b1/{path}")).await;
        assert_eq!(own.status, StatusCode::OK, "{path}");
        shop.get(&till, &format!("/v1/m1/b2/{path}")).await.problem(Code::Forbidden);
        shop.get(&till, &format!("/v1/other/b1/{path}")).await.problem(Code::Forbidden);
        let by_admin = shop.call(Method::GET, &format!("/v1/m1/b2/{path}"), shop.admin_token(), None).await;
        assert_eq!(by_admin.status, StatusCode::OK, "{path}");
        shop.call(Method::GET, &format!("/v1/m1/nowhere/{path}"), shop.admin_token(), None).await.problem(Code::NotFound);
    }
    shop.call(Method::POST, "/v1/admin/devices/till-1/move", shop.admin_token(), Some(json!({"branch": "b2"}))).await.ok();
    shop.get(&till, "/v1/m1/b1/changes").await.problem(Code::Forbidden);
    assert_eq!(shop.get(&till, "/v1/m1/b2/changes").await.status, StatusCode::OK);
}
