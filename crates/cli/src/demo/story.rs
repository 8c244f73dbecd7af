//! What happens in the shop, and when: receipts as they come, and scenes at fixed shares of the opening time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use mstore_protocol::{BranchId, BranchKey, Currency, MerchantId, OperationKind, Quantity, StockAct, StockTarget, Transfer};
use mstore_store::{InventoryItem, Merchant, MoveKind, Product, RecipeLine};

use crate::{
    api::{AdminApi, encode},
    data::{Dataset, keyed_hash},
    demo::{
        backend::Backend,
        figures::Publish,
        progress::Progress,
        published,
        till::{Till, money},
        truth::Truth,
    },
    failure::Failure,
    shop::{ShopWriter, product, stock_move},
};

/// A scene of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    PriceChanges,
    FirstTillsGoOffline,
    StockActs,
    BackOfficeMoves,
    FirstTillsReturn,
    BulkPriceImport,
    Disruption,
    ForeignSql,
    SecondTillsGoOffline,
    ProductGone,
    SecondTillsReturn,
}

/// When each scene starts, in hundredths of the opening time.
const SCENES: [(u32, Scene); 11] = [
    (8, Scene::PriceChanges),
    (14, Scene::FirstTillsGoOffline),
    (20, Scene::StockActs),
    (28, Scene::BackOfficeMoves),
    (38, Scene::FirstTillsReturn),
    (46, Scene::BulkPriceImport),
    (55, Scene::Disruption),
    (64, Scene::ForeignSql),
    (70, Scene::SecondTillsGoOffline),
    (78, Scene::ProductGone),
    (88, Scene::SecondTillsReturn),
];

/// The shop while it is open.
pub(crate) struct Shop {
    pub(crate) backend: Option<Backend>,
    pub(crate) data: Dataset,
    pub(crate) merchant: MerchantId,
    pub(crate) branches: Vec<BranchKey>,
    pub(crate) tills: Vec<Till>,
    pub(crate) truth: Truth,
    /// Counted by a server process that was killed since.
    pub(crate) published_before: Publish,
    pub(crate) seed: u64,
}

impl Shop {
    fn backend(&self) -> &Backend {
        self.backend.as_ref().expect("taken only while it is disrupted")
    }

    /// An administrator of the server.
    pub(crate) fn admin(&self) -> Result<AdminApi, Failure> {
        self.backend().admin()
    }

    /// Writes through the admin API.
    pub(crate) fn writer(&self) -> Result<ShopWriter, Failure> {
        Ok(ShopWriter::new(&self.admin()?))
    }

    /// Merchant, branches, catalogue, recipes, opening stock.
    pub(crate) async fn furnish(&mut self, sold_within_s: u64) -> Result<(), Failure> {
        let writer = self.writer()?;
        let merchant = Merchant {
            merchant: self.merchant.clone(),
            name: "Toko Maju".into(),
            currency: self.data.currency,
            stock_policy: mstore_store::StockPolicy::Warn,
            stock_authority: mstore_protocol::StockAuthority::Mstore,
        };
        writer.merchant(&merchant).await?;
        writer.products(&self.merchant, &catalogue(&self.data, 100)?).await?;
        let sold = self.data.units_sold(sold_within_s);
        for key in self.branches.clone() {
            writer.branch(&key, &format!("Cabang {}", key.branch)).await?;
            let beans =
                InventoryItem { id: "beans".into(), name: "Biji kopi".into(), unit: "kg".into(), reorder_level: Quantity::from_units(5) };
            writer.inventory(&key, &[beans]).await?;
            let moves: Vec<_> = self
                .data
                .catalogue
                .iter()
                .zip(&sold)
                .map(|(item, sold)| {
                    // Four fifths of what all branches together will sell: most products last, some are oversold.
                    let opening = Quantity::from_units(sold * 4 / 5 + 3);
                    self.truth.open(&key, &item.id, opening);
                    stock_move(&item.id, MoveKind::Count, opening, "opening")
                })
                .collect();
            writer.move_stock(&key, &moves).await?;
        }
        let recipe = [RecipeLine { item_id: "beans".into(), quantity: Quantity::from_milli(18) }];
        writer.recipe(&self.merchant, &self.data.catalogue[0].id, &recipe).await
    }

    /// Plays the day.
    pub(crate) async fn open(&mut self, open_for: Duration, speed: u64, data_dir: &Path, progress: &Progress) -> Result<(), Failure> {
        let start = Instant::now();
        let (mut next_invoice, mut next_scene) = (0, 0);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let elapsed = start.elapsed().min(open_for);
            let shop_s = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(speed) / 1000;
            while let Some(invoice) = self.data.invoices.get(next_invoice).filter(|invoice| invoice.at_s <= shop_s) {
                let invoice = invoice.clone();
                let till = self.till_of(&invoice.number);
                self.tills[till].ring_up(&self.data, &invoice).await?;
                self.truth.rung_up(&self.tills[till].key.clone(), &self.data, &invoice);
                next_invoice += 1;
                progress.receipts(next_invoice);
            }
            while let Some((_, scene)) = SCENES.get(next_scene).filter(|(share, _)| elapsed * 100 >= open_for * *share) {
                progress.say(scene.title(matches!(self.backend(), Backend::Process(_))));
                self.play(*scene, data_dir).await?;
                next_scene += 1;
            }
            progress.elapsed(elapsed);
            if elapsed >= open_for {
                return Ok(());
            }
        }
    }

    /// Branch and till of a receipt, by keyed hash: the first branches are the busiest.
    fn till_of(&self, number: &str) -> usize {
        let draw = keyed_hash(number, self.seed);
        let (a, b) = (draw % self.tills.len() as u64, (draw >> 32) % self.tills.len() as u64);
        usize::try_from(a.min(b)).unwrap_or(0)
    }

    async fn play(&mut self, scene: Scene, data_dir: &Path) -> Result<(), Failure> {
        match scene {
            Scene::PriceChanges => self.change_prices().await,
            Scene::FirstTillsGoOffline => self.set_online(0, false).await,
            Scene::StockActs => self.act_on_tills().await,
            Scene::BackOfficeMoves => self.move_in_back_office().await,
            Scene::FirstTillsReturn => self.set_online(0, true).await,
            Scene::BulkPriceImport => self.writer()?.products(&self.merchant, &catalogue(&self.data, 105)?).await,
            Scene::Disruption => {
                if matches!(self.backend(), Backend::Process(_)) {
                    self.published_before = published(&self.admin()?).await?;
                }
                let backend = self.backend.take().expect("put back below");
                self.backend = Some(backend.disrupt(data_dir).await?);
                Ok(())
            }
            Scene::ForeignSql => self.write_with_sql(),
            Scene::SecondTillsGoOffline => self.set_online(1, false).await,
            Scene::ProductGone => self.replace_a_product().await,
            Scene::SecondTillsReturn => self.set_online(1, true).await,
        }
    }

    async fn change_prices(&mut self) -> Result<(), Failure> {
        let mut some = catalogue(&self.data, 98)?;
        some.truncate(20);
        let writer = self.writer()?;
        for one in &some {
            writer.products(&self.merchant, std::slice::from_ref(one)).await?;
        }
        Ok(())
    }

    /// Every third till, starting at `group`.
    async fn set_online(&mut self, group: usize, online: bool) -> Result<(), Failure> {
        for till in self.tills.iter().skip(group).step_by(3) {
            till.client.set_online(online).await;
        }
        Ok(())
    }

    async fn act_on_tills(&mut self) -> Result<(), Failure> {
        let ids: Vec<String> = self.data.catalogue.iter().take(8).map(|item| item.id.clone()).collect();
        let neighbours = self.branches.clone();
        for (i, till) in self.tills.iter_mut().enumerate() {
            let act = |quantity: &str, item: &str, reason: &str| -> Result<StockAct, Failure> {
                let quantity = Quantity::parse(quantity).map_err(|error| Failure::check(error.to_string()))?;
                Ok(StockAct { collection: StockTarget::Product, item_id: item.to_owned(), quantity, reason: reason.to_owned() })
            };
            let key = till.key.clone();
            till.act(OperationKind::Receive(act("24", &ids[0], "received")?), None).await?;
            self.truth.moved(&key, &ids[0], Quantity::from_units(24));
            till.act(OperationKind::Adjust(act("-0.125", &ids[1], "damaged")?), None).await?;
            self.truth.moved(&key, &ids[1], Quantity::from_milli(-125));
            if i % 4 == 0 {
                till.act(OperationKind::Count(act("40", &ids[2], "stocktake")?), None).await?;
                self.truth.counted(&key, &ids[2]);
            }
            if let Some(to) = neighbours.iter().find(|other| **other != key).filter(|_| i % 4 == 1) {
                let to_branch: BranchId = to.branch.clone();
                till.act(OperationKind::Transfer(Transfer { act: act("3", &ids[3], "transfer")?, to_branch }), None).await?;
                self.truth.moved(&key, &ids[3], Quantity::from_units(-3));
                self.truth.moved(to, &ids[3], Quantity::from_units(3));
            }
        }
        Ok(())
    }

    async fn move_in_back_office(&mut self) -> Result<(), Failure> {
        let writer = self.writer()?;
        for key in &self.branches {
            let moves: Vec<_> = self
                .data
                .catalogue
                .iter()
                .skip(10)
                .take(40)
                .map(|item| stock_move(&item.id, MoveKind::Delta, Quantity::from_units(12), "goods receipt"))
                .collect();
            for one in &moves {
                self.truth.moved(key, &one.item_id, one.quantity);
            }
            writer.move_stock(key, &moves).await?;
        }
        Ok(())
    }

    /// A program that knows nothing of us writes to the tables while the server runs.
    fn write_with_sql(&mut self) -> Result<(), Failure> {
        let database = self.backend().ready().database;
        let key = self.branches[0].clone();
        let ids: Vec<String> = self.data.catalogue.iter().skip(60).take(10).map(|item| item.id.clone()).collect();
        let wrote = (|| {
            let mut sql = rusqlite::Connection::open(&database)?;
            sql.busy_timeout(Duration::from_secs(10))?;
            let all_or_nothing = sql.transaction()?;
            for id in &ids {
                all_or_nothing.execute(
                    "UPDATE branch_product SET stock_milli = stock_milli + 7000 WHERE merchant_id = ?1 AND branch_id = ?2 AND product_id = ?3",
                    (self.merchant.as_str(), key.branch.as_str(), id),
                )?;
                all_or_nothing
                    .execute("UPDATE product SET name = name || ' *' WHERE merchant_id = ?1 AND id = ?2", (self.merchant.as_str(), id))?;
            }
            all_or_nothing.commit()
        })();
        wrote.map_err(|error: rusqlite::Error| Failure::check(format!("SQL on {database}: {error}")))?;
        for id in &ids {
            self.truth.moved(&key, id, Quantity::from_units(7));
        }
        Ok(())
    }

    async fn replace_a_product(&mut self) -> Result<(), Failure> {
        let api = self.admin()?;
        let writer = ShopWriter::new(&api);
        writer.products(&self.merchant, &[product("NEW-1", "Barang baru", money(990_000, self.data.currency)?)]).await?;
        writer.products(&self.merchant, &[product("OLD-1", "Barang lama", money(10_000, self.data.currency)?)]).await?;
        api.delete(&format!("/v1/admin/merchants/{}/products/{}", self.merchant, encode("OLD-1"))).await
    }
}

impl Scene {
    fn title(self, own_process: bool) -> &'static str {
        match self {
            Self::Disruption if own_process => "the server is killed with SIGKILL in the middle of it all",
            Self::PriceChanges => "head office changes 20 prices",
            Self::FirstTillsGoOffline => "a third of the tills loses its network and goes on selling",
            Self::StockActs => "tills receive, write off, count and transfer goods",
            Self::BackOfficeMoves => "the back office books goods receipts",
            Self::FirstTillsReturn => "the first tills are back",
            Self::BulkPriceImport => "bulk import: every price changes in one commit",
            Self::Disruption => "the broker restarts in the middle of it all",
            Self::ForeignSql => "somebody writes to the tables with plain SQL",
            Self::SecondTillsGoOffline => "other tills lose their network and go on selling",
            Self::ProductGone => "a product comes, another goes",
            Self::SecondTillsReturn => "everybody is back",
        }
    }
}

/// The catalogue at `percent` of its prices.
fn catalogue(data: &Dataset, percent: i64) -> Result<Vec<Product>, Failure> {
    let price = |amount: i64, currency: Currency| money((amount * percent / 100).max(1), currency);
    data.catalogue.iter().map(|item| Ok(product(&item.id, &item.name, price(item.price, data.currency)?))).collect()
}
