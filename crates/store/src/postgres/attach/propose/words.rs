//! What the names of tables and columns suggest.

/// A name without case and underscores: `Unit_Price`, `unitPrice` and `UNITPRICE` are one.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The words of a name: `homePhone` and `home_phone` have two.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn has_word(name: &str, of: &[&str]) -> bool {
    words(name).iter().any(|word| of.contains(&word.as_str()))
}

/// A name that can stand in a topic.
pub(super) fn segment(name: &str) -> String {
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c.to_ascii_lowercase() } else { '_' }).collect();
    let cut: String = clean.chars().take(64).collect();
    if cut.is_empty() { "table".into() } else { cut }
}

pub(super) fn is_housekeeping(table: &str) -> bool {
    const TABLES: [&str; 9] = [
        "schemamigrations",
        "migrations",
        "gooseversion",
        "goosedbversion",
        "flywayschemahistory",
        "alembicversion",
        "databasechangelog",
        "databasechangeloglock",
        "knexmigrations",
    ];
    TABLES.contains(&plain(table).as_str())
}

pub(super) fn is_about_people(column: &str) -> bool {
    has_word(
        column,
        &[
            "email",
            "phone",
            "mobile",
            "fax",
            "address",
            "birth",
            "birthdate",
            "dob",
            "passport",
            "ssn",
            "nik",
            "npwp",
            "firstname",
            "lastname",
            "salary",
        ],
    ) || matches!(plain(column).as_str(), "firstname" | "lastname" | "fullname" | "contactname" | "birthdate")
}

pub(super) fn is_secret(column: &str) -> bool {
    has_word(column, &["password", "passwd", "secret", "token", "salt", "pin", "cvv", "apikey"]) || plain(column).contains("passwordhash")
}

pub(super) fn is_money(column: &str) -> bool {
    has_word(column, &["price", "amount", "total", "subtotal", "cost", "freight", "fee", "tax", "paid", "harga", "balance", "cents"])
        && !has_word(column, &["rate", "percent", "pct", "count", "qty", "quantity"])
}

pub(super) fn is_minor(column: &str) -> bool {
    has_word(column, &["cents", "cent", "minor", "sen"])
}

pub(super) fn is_quantity(column: &str) -> bool {
    has_word(column, &["qty", "quantity", "stock", "reorder", "weight", "jumlah", "stok"])
        || matches!(plain(column).as_str(), "unitsinstock" | "unitsonorder" | "onhand")
}

pub(super) fn is_branch(column: &str) -> bool {
    matches!(
        plain(column).as_str(),
        "branchid"
            | "branch"
            | "branchcode"
            | "outletid"
            | "outlet"
            | "outletcode"
            | "storeid"
            | "storecode"
            | "shopid"
            | "locationid"
            | "warehouseid"
            | "cabangid"
    )
}

pub(super) fn is_branch_table(table: &str) -> bool {
    matches!(
        plain(table).as_str(),
        "branch"
            | "branches"
            | "outlet"
            | "outlets"
            | "store"
            | "stores"
            | "shop"
            | "shops"
            | "location"
            | "locations"
            | "warehouses"
            | "cabang"
    )
}

pub(super) fn is_merchant(column: &str) -> bool {
    matches!(
        plain(column).as_str(),
        "merchantid" | "merchant" | "tenantid" | "tenant" | "companyid" | "organizationid" | "organisationid" | "orgid"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_words_however_it_is_written() {
        for name in ["unit_price", "unitPrice", "UnitPrice", "Unit Price"] {
            assert_eq!(words(name), ["unit", "price"], "{name}");
            assert!(is_money(name), "{name}");
        }
        assert!(!is_money("tax_rate") && !is_money("pricelist"));
        assert!(is_about_people("home_phone") && !is_about_people("headphones"));
        assert_eq!(segment("Größe & Co"), "gr__e___co");
    }
}
