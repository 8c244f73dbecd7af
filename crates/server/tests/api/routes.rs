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

    /// The path of something that is there.
    pub(crate) fn concrete(&self) -> String {
        let names = [("merchant", "m1"), ("branch", "b1"), ("id", "tea"), ("product_id", "tea"), ("device", "till-2")];
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
