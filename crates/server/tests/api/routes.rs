//! Every route as `/openapi.json` has it, so that a test can walk all of them, those of tomorrow too.

use reqwest::Method;
use serde_json::Value;

/// One method of one path.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// With its names in braces.
    pub(crate) path: String,
    pub(crate) takes_body: bool,
    /// `device`, `admin`; none for what is open to anyone.
    pub(crate) roles: Vec<String>,
}

impl Route {
    /// `PUT /v1/admin/merchants/{merchant}`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The path with names in it: of what a test shop has, if it has any.
    pub(crate) fn concrete(&self) -> String {
        let id = match self.path.split('/').rev().nth(2) {
            Some("dead-letters" | "inbox" | "transfers") => "019aab12-3456-7abc-8def-0123456789ab",
            Some("oversells") => "1",
            _ => "tea",
        };
        let names = [("merchant", "m1"), ("branch", "b1"), ("id", id), ("product_id", "tea"), ("device", "till-2"), ("name", "desk")];
        let path = names.iter().fold(self.path.clone(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        assert!(!path.contains('{'), "{path}: say in routes.rs what stands for this name");
        path
    }
}

pub(crate) fn routes() -> Vec<Route> {
    let document: Value = serde_json::from_str(&mstore_server::openapi_json()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let roles = operation["security"].as_array().into_iter().flatten().flat_map(|role| role.as_object().unwrap().keys().cloned());
            routes.push(Route {
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                takes_body: !operation["requestBody"].is_null(),
                roles: roles.collect(),
            });
        }
    }
    assert!(routes.len() >= 40, "{}", routes.len());
    routes
}
