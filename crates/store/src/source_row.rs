//! Rows of the source tables as devices see them: canonical texts, made of what a database has read.

use mstore_protocol::{
    PersonalData, Quantity, Row,
    limits::{QUANTITY_MILLI_MAX, ROW_BYTES_MAX},
};

use crate::text::Text;

/// A source row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceRow {
    /// As devices are to have it.
    Is(Box<str>),
    /// There is none.
    Gone,
    /// There is one, but it is too old to be on devices.
    Expired,
    /// It breaks the rules of rows; devices keep what they have.
    Bad(String),
    /// It cannot be known now, about which somebody was told; devices keep what they have.
    Kept,
}

impl SourceRow {
    /// A text, if it is not too long.
    pub(crate) fn bounded(text: Box<str>) -> Self {
        if text.len() > ROW_BYTES_MAX {
            return Self::Bad(format!("{} bytes; a row has at most {ROW_BYTES_MAX}", text.len()));
        }
        Self::Is(text)
    }

    /// Without what no device may hold.
    pub(crate) fn screened(self, personal: &PersonalData) -> Self {
        let Self::Is(text) = self else { return self };
        personal.find(&text).map_or(Self::Is(text), |found| Self::Bad(found.to_string()))
    }
}

/// A quantity within the range of the protocol, or what is wrong with it.
fn quantity(milli: i64) -> Result<Quantity, String> {
    if milli.unsigned_abs() > QUANTITY_MILLI_MAX.unsigned_abs() {
        return Err(format!("a value cannot be read: {milli} thousandths; a quantity has at most {QUANTITY_MILLI_MAX}"));
    }
    Ok(Quantity::from_milli(milli))
}

fn written(text: Result<Box<str>, String>) -> SourceRow {
    text.map_or_else(SourceRow::Bad, SourceRow::bounded)
}

/// A product at a branch.
pub(crate) struct Product<'a> {
    pub(crate) id: &'a str,
    pub(crate) sku: &'a str,
    pub(crate) barcode: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) category: Option<&'a str>,
    pub(crate) unit: &'a str,
    pub(crate) price_amount: i64,
    pub(crate) currency: &'a str,
    pub(crate) stock_milli: i64,
    pub(crate) track_stock: bool,
    pub(crate) is_active: bool,
    pub(crate) updated_at: &'a str,
    /// Item and thousandths, by item; empty for none.
    pub(crate) recipe: Vec<(String, i64)>,
}

impl Product<'_> {
    /// As devices see it.
    pub(crate) fn row(&self) -> SourceRow {
        written(self.text())
    }

    fn text(&self) -> Result<Box<str>, String> {
        let mut out = Text::object();
        out.key("barcode").string_or_null(self.barcode);
        out.key("category").string_or_null(self.category);
        out.key("id").string(self.id);
        out.key("is_active").plain(self.is_active);
        out.key("name").string(self.name);
        out.key("price").amount(self.price_amount, self.currency);
        if !self.recipe.is_empty() {
            let lines: Vec<_> = self.recipe.iter().map(|(item, milli)| Ok((item, quantity(*milli)?))).collect::<Result<_, String>>()?;
            out.key("recipe").objects(lines, |out, (item, quantity)| {
                out.key("item_id").string(item);
                out.key("quantity").quantity(quantity);
            });
        }
        out.key("sku").string(self.sku);
        out.key("stock").quantity(quantity(self.stock_milli)?);
        out.key("track_stock").plain(self.track_stock);
        out.key("unit").string(self.unit);
        out.key("updated_at").string(self.updated_at);
        Ok(out.end())
    }
}

/// An inventory item.
pub(crate) struct Item<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) quantity_milli: i64,
    pub(crate) reorder_level_milli: i64,
    pub(crate) updated_at: &'a str,
}

impl Item<'_> {
    /// As devices see it.
    pub(crate) fn row(&self) -> SourceRow {
        written(self.text())
    }

    fn text(&self) -> Result<Box<str>, String> {
        let mut out = Text::object();
        out.key("id").string(self.id);
        out.key("name").string(self.name);
        out.key("quantity").quantity(quantity(self.quantity_milli)?);
        out.key("reorder_level").quantity(quantity(self.reorder_level_milli)?);
        out.key("unit").string(self.unit);
        out.key("updated_at").string(self.updated_at);
        Ok(out.end())
    }
}

/// A receipt, whose body is the row.
pub(crate) fn transaction(id: &str, body: &str, is_within_window: bool) -> SourceRow {
    if !is_within_window {
        return SourceRow::Expired;
    }
    match Row::parse(body) {
        Ok(row) if row.id() == id => SourceRow::Is(row.as_str().into()),
        Ok(row) => SourceRow::Bad(format!("its body has the id {:?}", row.id())),
        Err(error) => SourceRow::Bad(error.to_string()),
    }
}
