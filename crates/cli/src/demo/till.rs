//! A till of the demo: a real client with a SQLite file of its own, and the cashier's memory of what was done on it.

use std::{path::Path, sync::Arc, time::Duration};

use mstore_client::{Client, Faults, Options};
use mstore_protocol::{BranchKey, BusinessDate, Currency, Money, OperationId, OperationKind, Quantity, Receipt, ReceiptLine, Tender};
use serde_json::json;

use crate::{
    api::AdminApi,
    data::{Dataset, Invoice, InvoiceKind},
    demo::latency::LatencyLog,
    failure::Failure,
    shop::now,
};

/// One operation as the cashier remembers it, kept outside the till's own database on purpose.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) id: OperationId,
    /// The receipt's total, minor units; none for stock acts.
    pub(crate) total: Option<i64>,
}

/// A till and its cashier.
pub(crate) struct Till {
    pub(crate) name: String,
    pub(crate) key: BranchKey,
    pub(crate) client: Client,
    pub(crate) sent: Vec<Sent>,
    pub(crate) latency: Arc<LatencyLog>,
}

impl Till {
    /// Claims, enrols and starts a till.
    pub(crate) async fn enrol(
        api: &AdminApi,
        server: &str,
        key: &BranchKey,
        name: &str,
        dir: &Path,
        faults: Option<(Faults, u64)>,
    ) -> Result<Self, Failure> {
        let body = json!({ "merchant": key.merchant, "branch": key.branch, "device_id": name, "name": name });
        let claim = api.post("/v1/admin/devices", &body).await?;
        let code = claim["code"].as_str().ok_or_else(|| Failure::unavailable("the server gave no claim code"))?;
        let (faults, seed) = faults.unzip();
        let options = Options { faults: faults.unwrap_or_default(), seed, ..Options::default() };
        let path = dir.join(format!("{name}.db"));
        let client = Client::enrol(&path, server, code, options)
            .await
            .map_err(|error| Failure::unavailable(format!("till {name} did not enrol: {error}")))?;
        let latency = LatencyLog::follow(&client);
        Ok(Self { name: name.to_owned(), key: key.clone(), client, sent: Vec::new(), latency })
    }

    /// Sells (or takes back) what the invoice says; on disk when it returns.
    pub(crate) async fn ring_up(&mut self, data: &Dataset, invoice: &Invoice) -> Result<(), Failure> {
        let receipt = receipt(data, invoice, &self.name)?;
        let total = receipt.total.amount;
        let kind = match invoice.kind {
            InvoiceKind::Sale => OperationKind::Sale(receipt),
            InvoiceKind::Return => OperationKind::Return(receipt),
        };
        self.act(kind, Some(total)).await
    }

    /// Any other operation.
    pub(crate) async fn act(&mut self, kind: OperationKind, total: Option<i64>) -> Result<(), Failure> {
        let committed = self.client.commit(kind).await.map_err(|error| Failure::check(format!("till {}: {error}", self.name)))?;
        self.sent.push(Sent { id: committed.id, total });
        Ok(())
    }

    /// Waits until everything it did has a verdict.
    pub(crate) async fn drain(&self, within: Duration) -> Result<(), Failure> {
        self.client.drain(within).await.map_err(|error| Failure::check(format!("till {}: {error}", self.name)))
    }
}

fn receipt(data: &Dataset, invoice: &Invoice, till: &str) -> Result<Receipt, Failure> {
    let currency = data.currency;
    let lines: Vec<ReceiptLine> = invoice
        .lines
        .iter()
        .zip(1..)
        .map(|(line, line_no)| {
            Ok(ReceiptLine {
                line_no,
                product_id: data.catalogue[line.product].id.clone(),
                quantity: Quantity::from_units(line.units),
                unit_price: money(line.unit_price, currency)?,
                total: money(line.unit_price * line.units, currency)?,
            })
        })
        .collect::<Result<_, Failure>>()?;
    let total = money(lines.iter().map(|line| line.total.amount).sum(), currency)?;
    let business_date = BusinessDate::parse(&now().date()).map_err(|error| Failure::check(error.to_string()))?;
    Ok(Receipt {
        lines,
        tenders: vec![Tender { kind: "cash".into(), amount: total }],
        total,
        receipt_no: format!("{till}-{}", invoice.number),
        business_date,
    })
}

pub(crate) fn money(amount: i64, currency: Currency) -> Result<Money, Failure> {
    Money::new(amount, currency).map_err(|error| Failure::check(error.to_string()))
}
