//! Every route with the credentials of somebody else: nobody, a guess, another till, another branch, another merchant.

use mstore_protocol::{Code, Enrolment};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    routes::{Route, routes},
    shop::{Answer, Shop, Till},
};

/// A name that only the branch m1/b1 has.
pub(crate) const SECRET: &str = "only-in-b1";

pub(crate) struct Town {
    pub(crate) shop: Shop,
    pub(crate) own: Till,
    /// Of another branch of the merchant.
    pub(crate) neighbour: Till,
    /// Of another merchant whose branch has the same name.
    pub(crate) stranger: Till,
    revoked: Till,
}

impl Town {
    pub(crate) async fn open() -> Self {
        let shop = Shop::open().await;
        for (merchant, branch) in [("m2", "b1"), ("M1", "b1")] {
            shop.admin(Method::PUT, &format!("/merchants/{merchant}"), json!({"name": "Other", "currency": "IDR"})).await.ok();
            shop.admin(Method::PUT, &format!("/merchants/{merchant}/branches/{branch}"), json!({"name": "Other"})).await.ok();
        }
        shop.admin(Method::PUT, "/merchants/m1/branches/B1", json!({"name": "Other"})).await.ok();
        let item = json!({"name": SECRET, "unit": "kg"});
        shop.admin(Method::PUT, "/merchants/m1/branches/b1/inventory/secret", item).await.ok();
        let own = shop.enrol("till-1", "b1").await;
        let neighbour = shop.enrol("till-2", "b2").await;
        let claim = json!({"device_id": "till-3", "merchant": "m2", "branch": "b1"});
        let code = shop.admin(Method::POST, "/devices", claim).await.ok()["code"].as_str().unwrap().to_owned();
        let stranger = Till { enrolment: serde_json::from_value(shop.redeem(&code, "nonce-of-till-3").await.ok()).unwrap() };
        let revoked = shop.enrol("till-4", "b1").await;
        shop.admin(Method::POST, "/devices/till-4/revoke", Value::Null).await.ok();
        Self { shop, own, neighbour, stranger, revoked }
    }

    /// Credentials that are nobody's.
    fn wrong(&self) -> Vec<(&'static str, String)> {
        let Enrolment { token, .. } = &self.own.enrolment;
        vec![
            ("a guess", "msa_guess".into()),
            ("the admin token in another case", self.shop.admin_token().to_uppercase()),
            ("the name of an admin token", "bootstrap".into()),
            ("no device", format!("till-9:{token}")),
            ("another device's token", format!("till-2:{token}")),
            ("a device without its token", "till-1:".into()),
            ("a device in another case", format!("TILL-1:{token}")),
            ("a revoked device", self.revoked.bearer()),
            ("the admin token as a device's", format!("till-1:{}", self.shop.admin_token())),
        ]
    }

    pub(crate) async fn call(&self, route: &Route, bearer: &str) -> Answer {
        let body = route.takes_body.then(|| json!({}));
        self.shop.call(route.method.clone(), &route.concrete(), bearer, body).await
    }
}

/// Refused as a problem, and nothing of the branch in it.
#[track_caller]
pub(crate) fn assert_refused(answer: &Answer, status: StatusCode, what: &str) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{what}: {body}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert!(!body.contains(SECRET) && !body.contains("Name of tea") && !body.contains("mst_"), "{what}: {body}");
}

#[tokio::test]
async fn without_credentials_of_ones_own_every_route_is_shut() {
    let town = Town::open().await;
    for route in routes().iter().filter(|route| !route.roles.is_empty()) {
        let bare = town.shop.http.request(route.method.clone(), town.shop.url(&route.concrete())).send().await.unwrap();
        let bare = Answer::of(bare).await;
        assert_refused(&bare, StatusCode::UNAUTHORIZED, &route.name());
        bare.problem(Code::CredentialsMissing);
        for (who, bearer) in town.wrong() {
            assert_refused(&town.call(route, &bearer).await, StatusCode::UNAUTHORIZED, &format!("{} by {who}", route.name()));
        }
    }
}

#[tokio::test]
async fn another_branch_or_merchant_is_not_let_in_and_no_till_administers() {
    let town = Town::open().await;
    let mut walked = 0;
    for route in routes().iter().filter(|route| !route.roles.is_empty()) {
        let of_branch = route.path.starts_with("/v1/{merchant}/{branch}/");
        let for_tills = route.roles.iter().any(|role| role == "device");
        let shut_to = match (of_branch, for_tills) {
            (true, true) => vec![("a neighbour", &town.neighbour), ("a stranger", &town.stranger)],
            // A till's own affairs name no branch.
            (false, true) => vec![],
            (_, false) => vec![("its own till", &town.own), ("a neighbour", &town.neighbour), ("a stranger", &town.stranger)],
        };
        for (who, till) in shut_to {
            walked += 1;
            assert_refused(&town.call(route, &till.bearer()).await, StatusCode::FORBIDDEN, &format!("{} by {who}", route.name()));
        }
        if !route.roles.iter().any(|role| role == "admin") {
            walked += 1;
            let answer = town.call(route, town.shop.admin_token()).await;
            assert_refused(&answer, StatusCode::FORBIDDEN, &format!("{} by the administrator", route.name()));
        }
    }
    assert!(walked >= 100, "{walked}");
}

#[tokio::test]
async fn no_spelling_of_a_name_opens_another_branch() {
    let town = Town::open().await;
    let spellings = [
        "M1/b1",
        "m1/B1",
        "%4d1/b1",
        "m1/b1%20",
        "m1/b1%00",
        "m1/b1%2f",
        "m1/%2e%2e%2fb1",
        "m1%2fb1/b1",
        "m2/..%2fm1%2fb1",
        "m1/b1;b2",
        "m1/b１",
        "m1/*",
        "m1/b1,b2",
        "%6d1/b1",
        "m1/b%31",
    ];
    for path in ["head", "changes", "digests?collection=inventory", "rows?collection=inventory&range=0"] {
        for spelling in spellings {
            let url = format!("/v1/{spelling}/{path}");
            for till in [&town.neighbour, &town.stranger] {
                let answer = town.shop.get(till, &url).await;
                let status = answer.status.as_u16();
                assert!([400, 403, 404].contains(&status), "{url}: {status}");
                assert_refused(&answer, answer.status, &url);
            }
        }
    }
    let encoded = town.shop.get(&town.own, "/v1/%6d1/b%31/head").await;
    assert_eq!(encoded.status, StatusCode::OK, "the same name, written otherwise");
}
