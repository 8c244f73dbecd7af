//! `trigger`: makes something happen through the same API that a backend uses, so that one can watch it arrive.

use mstore_protocol::{BranchKey, Currency, MerchantId, Money, Quantity};
use mstore_store::{Merchant, MoveKind, Product};
use serde_json::Value;

use crate::{
    api::{AdminApi, encode},
    args::{TriggerAction, TriggerArgs},
    data::Dataset,
    failure::Failure,
    shop::{ShopWriter, branch_key, product, stock_move},
};

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: TriggerArgs) -> Result<(), Failure> {
    let api = AdminApi::from_args(&args.admin)?;
    let done = match args.action {
        TriggerAction::Shop { branch, products } => shop(&api, &branch_key(&branch)?, products).await?,
        TriggerAction::Stock { branch, product, delta } => move_stock(&api, &branch, &product, MoveKind::Delta, &delta).await?,
        TriggerAction::Count { branch, product, quantity } => move_stock(&api, &branch, &product, MoveKind::Count, &quantity).await?,
        TriggerAction::Price { merchant, product, amount } => price(&api, &merchant_id(&merchant)?, &product, amount).await?,
        TriggerAction::Bulk { merchant, percent } => bulk(&api, &merchant_id(&merchant)?, percent).await?,
        TriggerAction::Delete { merchant, product } => {
            api.delete(&format!("/v1/admin/merchants/{}/products/{}", merchant_id(&merchant)?, encode(&product))).await?;
            format!("deleted {product}")
        }
    };
    println!("{done}");
    Ok(())
}

fn merchant_id(raw: &str) -> Result<MerchantId, Failure> {
    MerchantId::parse(raw).map_err(|error| Failure::usage(error.to_string()))
}

async fn shop(api: &AdminApi, key: &BranchKey, count: u32) -> Result<String, Failure> {
    let data = Dataset::load(None, 1, 60)?;
    let writer = ShopWriter::new(api);
    let merchant = Merchant {
        merchant: key.merchant.clone(),
        name: "Toko Contoh".into(),
        currency: data.currency,
        stock_policy: mstore_store::StockPolicy::default(),
        stock_authority: mstore_protocol::StockAuthority::default(),
    };
    writer.merchant(&merchant).await?;
    writer.branch(key, "Cabang Contoh").await?;
    let items: Vec<_> = data.catalogue.iter().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
    let products: Vec<Product> = items
        .iter()
        .map(|item| money(item.price, data.currency).map(|price| product(&item.id, &item.name, price)))
        .collect::<Result<_, _>>()?;
    writer.products(&key.merchant, &products).await?;
    let moves: Vec<_> = items.iter().map(|item| stock_move(&item.id, MoveKind::Count, Quantity::from_units(100), "stocktake")).collect();
    writer.move_stock(key, &moves).await?;
    Ok(format!("{key}: {} products with 100 each on the shelf; next: mstore-sync device add {key}", products.len()))
}

fn money(amount: i64, currency: Currency) -> Result<Money, Failure> {
    Money::new(amount, currency).map_err(|error| Failure::usage(error.to_string()))
}

async fn move_stock(api: &AdminApi, branch: &str, id: &str, kind: MoveKind, quantity: &str) -> Result<String, Failure> {
    let key = branch_key(branch)?;
    let quantity = Quantity::parse(quantity).map_err(|error| Failure::usage(error.to_string()))?;
    ShopWriter::new(api).move_stock(&key, &[stock_move(id, kind, quantity, "trigger")]).await?;
    Ok(match kind {
        MoveKind::Delta => format!("{key}: stock of {id} moved by {quantity}"),
        MoveKind::Count => format!("{key}: {id} counted, {quantity} on the shelf"),
    })
}

/// The catalogue as it is, for changing it.
async fn catalogue(api: &AdminApi, merchant: &MerchantId) -> Result<Vec<Product>, Failure> {
    let items = api.list_all(&format!("/v1/admin/merchants/{merchant}/products")).await?;
    items
        .into_iter()
        .map(|item| {
            serde_json::from_value(item)
                .map_err(|error| Failure::unavailable(format!("a product this version does not understand: {error}")))
        })
        .collect()
}

async fn price(api: &AdminApi, merchant: &MerchantId, id: &str, amount: i64) -> Result<String, Failure> {
    let mut found: Product = api.get(&format!("/v1/admin/merchants/{merchant}/products/{}", encode(id))).await?;
    found.price = money(amount, found.price.currency)?;
    let _: Value = api.put(&format!("/v1/admin/merchants/{merchant}/products/{}", encode(id)), &found).await?;
    Ok(format!("{id} costs {} in every branch without a price of its own", found.price))
}

async fn bulk(api: &AdminApi, merchant: &MerchantId, percent: i64) -> Result<String, Failure> {
    let mut products = catalogue(api, merchant).await?;
    for product in &mut products {
        product.price = money(product.price.amount.saturating_mul(100 + percent) / 100, product.price.currency)?;
    }
    ShopWriter::new(api).products(merchant, &products).await?;
    Ok(format!("{} prices changed by {percent} %", products.len()))
}
