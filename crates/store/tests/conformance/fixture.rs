//! The one place that touches the traits: a shop with two branches, and words for what happens in it.
#![allow(clippy::unwrap_used)]

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use mstore_protocol::{
    BranchKey, Collection, Currency, Cursor, DeviceId, Digest, Frame, Head, MerchantId, Money, OperationId, Position, Quantity, Row,
    RowHash, Seq, StockTarget, Timestamp, Verdict, VerdictStatus,
};
use mstore_store::{
    AcceptUpload, ActorRole, AdminRole, Alarm, By, ChangeRow, ChangesAsk, ChangesError, ChangesSummary, InventoryItem, Listing, Merchant,
    MoveKind, OutboxMessage, Product, RowSink, SourceWrite, StockMove, Store, StoreError, Written, sqlite::Clock,
};
use serde_json::{Value, json};

/// A clock that goes when it is told to.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(Timestamp::parse("2026-11-22T06:41:00.000Z").unwrap().as_ms())))
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }

    pub fn forward_s(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub fn as_fn(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// A store under test, and what must live as long as it.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub clock: TestClock,
    /// Runs statements as another program would, in one transaction.
    pub sql: Box<dyn Fn(&str) + Send + Sync>,
    /// An expression in its SQL: a text that no row for devices can have.
    pub unreadable: &'static str,
    /// Marks of others are taken along by a visit of their branch only, not by any write.
    pub visits: bool,
    pub keep: Box<dyn Any + Send>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn q(raw: &str) -> Quantity {
    Quantity::parse(raw).unwrap()
}

pub fn money(amount: i64) -> Money {
    Money::new(amount, Currency::parse("IDR").unwrap()).unwrap()
}

pub fn merchant() -> MerchantId {
    MerchantId::parse("m").unwrap()
}

pub fn branch(name: &str) -> BranchKey {
    BranchKey::parse("m", name).unwrap()
}

pub fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

/// Who acts in these tests.
pub fn by() -> By {
    By { role: ActorRole::Admin(AdminRole::Platform), name: "ops".into(), address: Some("10.0.0.7".parse().unwrap()) }
}

pub fn new_id() -> OperationId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes());
    OperationId::from_parts(Timestamp::from_ms(1_795_000_000_000), random)
}

pub fn product(id: &str) -> Product {
    Product {
        id: id.into(),
        sku: id.into(),
        barcode: None,
        name: format!("Product {id}"),
        category: None,
        unit: "pcs".into(),
        price: money(500),
        track_stock: true,
        is_active: true,
    }
}

/// Collects an answer.
#[derive(Default)]
pub struct Lines(pub Vec<(Seq, String, String, Option<String>)>);

impl RowSink for Lines {
    fn row(&mut self, row: ChangeRow<'_>) {
        self.0.push((row.seq, row.collection.to_string(), row.id.into(), row.row.map(str::to_owned)));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

pub struct Answer {
    pub summary: ChangesSummary,
    pub lines: Vec<(Seq, String, String, Option<String>)>,
}

impl Answer {
    pub fn ids(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.2.as_str()).collect()
    }

    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.summary.epoch, seq: self.summary.to, tag: self.summary.tag }
    }

    pub fn position(&self, line: usize) -> Position {
        let (seq, collection, id, _) = &self.lines[line];
        Position {
            epoch: self.summary.epoch,
            to: self.summary.to,
            seq: *seq,
            collection: Collection::parse(collection).unwrap(),
            id: id.clone(),
        }
    }
}

impl Fixture {
    /// A merchant with branches `a` and `b`.
    pub async fn shop(self) -> Self {
        self.put_merchant(|_| ()).await.unwrap();
        for name in ["a", "b"] {
            self.write(SourceWrite::PutBranch { key: branch(name), name: name.into() }).await.unwrap();
        }
        self
    }

    pub async fn put_merchant(&self, change: impl FnOnce(&mut Merchant)) -> Result<Written, StoreError> {
        let mut settings = Merchant {
            merchant: merchant(),
            name: "M".into(),
            currency: Currency::parse("IDR").unwrap(),
            stock_policy: Default::default(),
            stock_authority: Default::default(),
        };
        change(&mut settings);
        self.write(SourceWrite::PutMerchant(settings)).await
    }

    /// Everything written so far is sequenced: a write of our own takes all marks along, or an upload without operations those of its branch.
    pub async fn settle(&self) {
        self.store.upkeep().await.unwrap();
        if self.visits {
            let branches = self.store.list(Listing::Branches(merchant()), None, 100).await.unwrap().items;
            for branch in branches {
                self.accept_from(branch["branch"].as_str().unwrap(), "visitor", "v", 0, Vec::new()).await.unwrap();
            }
        }
    }

    pub async fn write(&self, write: SourceWrite) -> Result<Written, StoreError> {
        self.store.write(write).await
    }

    pub async fn put(&self, products: Vec<Product>) -> Written {
        self.write(SourceWrite::PutProducts { merchant: merchant(), products }).await.unwrap()
    }

    pub async fn put_ids(&self, ids: &[&str]) -> Written {
        self.put(ids.iter().map(|id| product(id)).collect()).await
    }

    pub async fn put_items(&self, at: &str, ids: &[&str]) {
        let items =
            ids.iter().map(|id| InventoryItem { id: (*id).into(), name: (*id).into(), unit: "kg".into(), reorder_level: q("1") }).collect();
        self.write(SourceWrite::PutInventory { key: branch(at), items }).await.unwrap();
    }

    pub async fn stock_move(
        &self,
        at: &str,
        kind: MoveKind,
        collection: StockTarget,
        item: &str,
        quantity: &str,
    ) -> Result<Written, StoreError> {
        let one = StockMove { id: new_id(), collection, item_id: item.into(), kind, quantity: q(quantity), reason: "test".into() };
        self.write(SourceWrite::MoveStock { key: branch(at), moves: vec![one] }).await
    }

    pub async fn deliver(&self, at: &str, item: &str, quantity: &str) -> Written {
        self.stock_move(at, MoveKind::Delta, StockTarget::Product, item, quantity).await.unwrap()
    }

    pub async fn head(&self, at: &str) -> Head {
        self.store.head(&branch(at)).await.unwrap().unwrap()
    }

    pub async fn ask(&self, at: &str, after: Option<Cursor>, resume: Option<Position>) -> Result<Answer, ChangesError> {
        let ask = ChangesAsk { key: branch(at), after, resume };
        let (summary, sink) = self.store.changes(ask, Box::<Lines>::default()).await?;
        let lines = sink.into_any().downcast::<Lines>().unwrap().0;
        assert_eq!(summary.rows, lines.len() as u64);
        Ok(Answer { summary, lines })
    }

    pub async fn snapshot(&self, at: &str) -> Answer {
        self.ask(at, None, None).await.unwrap()
    }

    /// A row as devices have it.
    pub async fn row(&self, at: &str, collection: &str, id: &str) -> Option<Value> {
        let answer = self.snapshot(at).await;
        let line = answer.lines.into_iter().find(|line| line.1 == collection && line.2 == id)?;
        Some(serde_json::from_str(&line.3?).unwrap())
    }

    pub async fn stock(&self, at: &str, id: &str) -> String {
        self.row(at, "product", id).await.unwrap()["stock"].as_str().unwrap().into()
    }

    pub async fn quantity(&self, at: &str, id: &str) -> String {
        self.row(at, "inventory", id).await.unwrap()["quantity"].as_str().unwrap().into()
    }

    pub async fn accept(&self, at: &str, operations: Vec<Value>) -> Vec<Verdict> {
        self.accept_from(at, "till", "j", 0, operations).await.unwrap()
    }

    pub async fn accept_from(
        &self,
        at: &str,
        till: &str,
        journal: &str,
        offset: i64,
        operations: Vec<Value>,
    ) -> Result<Vec<Verdict>, StoreError> {
        let operations = operations.iter().map(Value::to_string).collect();
        let upload =
            AcceptUpload { key: branch(at), device: device(till), journal_id: journal.into(), clock_offset_ms: offset, operations };
        self.store.accept(upload).await
    }

    pub async fn accept_one(&self, at: &str, operation: Value) -> Verdict {
        self.accept(at, vec![operation]).await.remove(0)
    }

    /// A sale of one product at 500.
    pub fn sale(&self, seq: u64, product_id: &str, quantity: &str) -> Value {
        let total = json!({"amount": 500, "currency": "IDR"});
        json!({"id": new_id().to_string(), "device_seq": seq, "type": "sale", "occurred_at": self.clock.now().to_string(),
            "lines": [{"line_no": 1, "product_id": product_id, "quantity": quantity, "unit_price": total, "total": total}],
            "tenders": [{"type": "cash", "amount": total}], "total": total, "receipt_no": format!("R-{seq}"), "business_date": "2026-11-22"})
    }

    pub fn act(&self, seq: u64, act: &str, collection: &str, item: &str, quantity: &str) -> Value {
        json!({"id": new_id().to_string(), "device_seq": seq, "type": act, "occurred_at": self.clock.now().to_string(),
            "collection": collection, "item_id": item, "quantity": quantity, "reason": "test"})
    }

    pub async fn frames(&self) -> Vec<(String, Frame)> {
        let entries = self.store.outbox(0, 10_000).await.unwrap();
        let frames = entries.into_iter().filter_map(|entry| match entry.message {
            OutboxMessage::Frame { payload, .. } => Some((entry.key.branch.to_string(), Frame::parse(payload.as_bytes()).unwrap())),
            OutboxMessage::HeadOnly => None,
        });
        frames.collect()
    }

    pub async fn alarms(&self, kind: &str) -> Vec<Alarm> {
        let page = self.store.list(Listing::Alarms, None, 100).await.unwrap();
        page.items.into_iter().map(|item| serde_json::from_value::<Alarm>(item).unwrap()).filter(|alarm| alarm.kind == kind).collect()
    }
}

pub fn digests_of(lines: &[(Seq, String, String, Option<String>)]) -> BTreeMap<Collection, Digest> {
    let mut digests: BTreeMap<_, _> = Collection::built_in().into_iter().map(|name| (name, Digest::EMPTY)).collect();
    for (_, collection, id, row) in lines {
        let name = Collection::parse(collection).unwrap();
        let text = row.as_deref().unwrap();
        assert_eq!(Row::parse(text).unwrap().as_str(), text, "rows are canonical");
        let digest = digests.get_mut(&name).unwrap();
        *digest = digest.with(RowHash::of(&name, id, text));
    }
    digests
}

pub fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

pub fn assert_rejected(verdict: &Verdict, code: mstore_protocol::Code) {
    assert_eq!((verdict.status, verdict.code), (VerdictStatus::Rejected, Some(code)), "{verdict:?}");
}
