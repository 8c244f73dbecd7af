//! What each route that takes an admin token asks of it: all of them in one place. A route that is not here is shut.

use axum::http::Method;
use mstore_store::AdminRole;

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Shows something: any role.
    Read,
    /// Changes something of a merchant: platform, or that merchant's own.
    Write,
    /// Concerns everybody, or decides who may do what: platform.
    Platform,
}

impl Needs {
    pub(super) fn allow(self, role: AdminRole) -> bool {
        match role {
            AdminRole::Platform => true,
            AdminRole::Merchant => self != Self::Platform,
            AdminRole::ReadOnly => self == Self::Read,
        }
    }

    /// For people.
    pub(super) fn who(self) -> &'static str {
        match self {
            Self::Read => "any admin token",
            Self::Write => "a platform token, or a token of the merchant",
            Self::Platform => "a platform token",
        }
    }
}

use Needs::{Platform, Read, Write};

/// Method, path, what it needs.
const ROUTES: &[(&str, &str, Needs)] = &[
    ("GET", "/v1/{merchant}/{branch}/changes", Read),
    ("GET", "/v1/{merchant}/{branch}/head", Read),
    ("GET", "/v1/{merchant}/{branch}/digests", Read),
    ("GET", "/v1/{merchant}/{branch}/rows", Read),
    ("POST", "/v1/{merchant}/{branch}/events", Write),
    ("GET", "/v1/admin/merchants", Read),
    ("GET", "/v1/admin/merchants/{merchant}", Read),
    // Its currency, its policies, who decides its stock.
    ("PUT", "/v1/admin/merchants/{merchant}", Platform),
    ("GET", "/v1/admin/merchants/{merchant}/branches", Read),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}", Read),
    ("PUT", "/v1/admin/merchants/{merchant}/branches/{branch}", Write),
    ("GET", "/v1/admin/merchants/{merchant}/products", Read),
    ("POST", "/v1/admin/merchants/{merchant}/products", Write),
    ("GET", "/v1/admin/merchants/{merchant}/products/{id}", Read),
    ("PUT", "/v1/admin/merchants/{merchant}/products/{id}", Write),
    ("DELETE", "/v1/admin/merchants/{merchant}/products/{id}", Write),
    ("PUT", "/v1/admin/merchants/{merchant}/products/{id}/recipe", Write),
    ("PUT", "/v1/admin/merchants/{merchant}/branches/{branch}/prices/{product_id}", Write),
    ("DELETE", "/v1/admin/merchants/{merchant}/branches/{branch}/prices/{product_id}", Write),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}/inventory", Read),
    ("POST", "/v1/admin/merchants/{merchant}/branches/{branch}/inventory", Write),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}", Read),
    ("PUT", "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}", Write),
    ("DELETE", "/v1/admin/merchants/{merchant}/branches/{branch}/inventory/{id}", Write),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}/stock-moves", Read),
    ("POST", "/v1/admin/merchants/{merchant}/branches/{branch}/stock-moves", Write),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}/operations", Read),
    ("GET", "/v1/admin/merchants/{merchant}/branches/{branch}/transactions", Read),
    ("GET", "/v1/admin/alarms", Read),
    ("POST", "/v1/admin/merchants/{merchant}/branches/{branch}/holds/confirm", Write),
    ("GET", "/v1/admin/merchants/{merchant}/dead-letters", Read),
    ("POST", "/v1/admin/merchants/{merchant}/dead-letters/{id}/retry", Write),
    ("POST", "/v1/admin/merchants/{merchant}/dead-letters/{id}/edit", Write),
    ("POST", "/v1/admin/merchants/{merchant}/dead-letters/{id}/discard", Write),
    ("GET", "/v1/admin/merchants/{merchant}/inbox", Read),
    ("POST", "/v1/admin/merchants/{merchant}/inbox/{id}/verdict", Write),
    ("GET", "/v1/admin/merchants/{merchant}/oversells", Read),
    ("POST", "/v1/admin/merchants/{merchant}/oversells/{id}/settle", Write),
    ("GET", "/v1/admin/merchants/{merchant}/transfers", Read),
    ("GET", "/v1/admin/merchants/{merchant}/transfers/balance", Read),
    ("POST", "/v1/admin/merchants/{merchant}/branches/{branch}/transfers/{id}/receive", Write),
    ("PUT", "/v1/admin/merchants/{merchant}/transfer-arrival", Write),
    ("GET", "/v1/admin/devices", Read),
    ("POST", "/v1/admin/devices", Write),
    ("GET", "/v1/admin/devices/{device}", Read),
    ("POST", "/v1/admin/devices/{device}/rotate", Write),
    ("POST", "/v1/admin/devices/{device}/revoke", Write),
    ("POST", "/v1/admin/devices/{device}/lost", Write),
    ("POST", "/v1/admin/devices/{device}/move", Write),
    ("POST", "/v1/admin/devices/{device}/journal", Write),
    ("GET", "/v1/admin/fleet", Read),
    ("GET", "/v1/admin/overview", Read),
    ("GET", "/v1/admin/levels", Read),
    // Reads everything of everybody, and mends what differs.
    ("POST", "/v1/admin/verify", Platform),
    ("GET", "/v1/admin/tail", Read),
    ("GET", "/v1/admin/audit", Read),
    ("GET", "/v1/admin/tokens", Read),
    ("POST", "/v1/admin/tokens", Platform),
    ("POST", "/v1/admin/tokens/{name}/rotate", Platform),
    ("POST", "/v1/admin/tokens/{name}/revoke", Platform),
    // A merchant changes its own token for another of the same kind.
    ("POST", "/v1/admin/token/rotate", Write),
];

/// What a route needs; `None` for one that takes no admin token.
pub(super) fn needed(method: &Method, path: &str) -> Option<Needs> {
    // Whoever may GET may ask for the headers.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().find(|(of, at, _)| *of == method && *at == path).map(|(_, _, needs)| *needs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_that_takes_an_admin_token_is_here_once_and_nothing_else_is() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap();
        let mut documented = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let schemes = operation["security"].as_array().into_iter().flatten().flat_map(|of| of.as_object().unwrap().keys());
                if schemes.into_iter().any(|scheme| scheme == "admin") {
                    documented.insert((method.to_uppercase(), path.clone()));
                }
            }
        }
        let here: BTreeSet<_> = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(here.len(), ROUTES.len());
        assert_eq!(here, documented);
    }

    #[test]
    fn a_token_that_only_reads_opens_nothing_that_changes() {
        for (method, path, needs) in ROUTES {
            assert_eq!(*method == "GET", *needs == Read, "{method} {path}");
        }
        assert_eq!(needed(&Method::HEAD, "/v1/admin/fleet"), Some(Read));
        assert_eq!(needed(&Method::POST, "/v1/devices/self/rotate"), None);
    }
}
