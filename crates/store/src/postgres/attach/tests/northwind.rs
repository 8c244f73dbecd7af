//! Northwind: `real` prices, no branch column, keys of two columns. Read from where it lies, if it is there.

use serde_json::json;

use super::*;

/// Beside the project, where data for tests lies that is not ours.
fn northwind() -> Option<String> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/schemas/northwind.sql");
    // Made for a version that still had this setting.
    Some(std::fs::read_to_string(file).ok()?.replace("SET default_with_oids = false;", ""))
}

#[tokio::test]
async fn northwind_is_attached_as_it_is() {
    let Some(schema) = northwind() else { return };
    let Some(mut foreign) = foreign("northwind", &schema).await else { return };
    let proposal = foreign.propose().await;
    let enabled: Vec<&str> = proposal.mapping.collections.iter().filter(|c| c.enabled).map(|c| c.name.as_str()).collect();
    assert!(enabled.contains(&"product") && enabled.contains(&"order_details"), "{enabled:?}");
    assert!(!enabled.contains(&"customers") && !enabled.contains(&"employees"), "people are not sent unasked: {enabled:?}");
    foreign.install(proposal.mapping).await;

    let first = foreign.sequence().await;
    for (collection, table) in [("product", "products"), ("order_details", "order_details"), ("categories", "categories")] {
        let expect = usize::try_from(foreign.count(&format!("SELECT count(*) FROM public.{table}")).await).unwrap();
        assert_eq!(tally(&first, collection), (expect, vec![]), "{collection}");
    }
    let chai = row(&first, "main", "product", "1");
    assert_eq!(
        (&chai["name"], &chai["price"], &chai["stock"]),
        (&json!("Chai"), &json!({"amount": 1800, "currency": "USD"}), &json!("39"))
    );
    assert_eq!((&chai["sku"], &chai["is_active"], &chai["track_stock"]), (&json!("1"), &json!(false), &json!(true)));
    let detail = row(&first, "main", "order_details", "10248:11");
    assert_eq!((&detail["unit_price"]["amount"], &detail["quantity"], &detail["discount"]), (&json!(1400), &json!("12"), &json!("0")));

    foreign.write("UPDATE products SET unit_price = 18.4 WHERE product_id = 1; DELETE FROM order_details WHERE order_id = 10248;
        UPDATE products SET unit_price = 19.123 WHERE product_id = 2; UPDATE order_details SET order_id = 10250 WHERE order_id = 10249 AND product_id = 14");
    let second = foreign.sequence().await;
    assert_eq!(row(&second, "main", "product", "1")["price"]["amount"], 1840);
    let SourceRow::Bad(why) = &second[&("main".into(), "product".into(), "2".into())] else { panic!("{second:?}") };
    assert!(why.contains("price") && why.contains("19.123") && why.contains("2 decimals"), "{why}");
    let moved = [
        "-main order_details 10248:11",
        "-main order_details 10248:42",
        "-main order_details 10248:72",
        "-main order_details 10249:14",
        "+main order_details 10250:14",
    ];
    let details: Vec<String> = marked(&second).into_iter().filter(|mark| mark.contains("order_details")).collect();
    assert_eq!(details, moved);
}
