//! The cases of the access matrix, spoken of this deployment and of merchants that nobody trades under.

use mstore_broker::ACL_MATRIX;

/// Whose branches the throw-away devices belong to.
pub(super) const MERCHANT: &str = "mstore-verify";
/// Another merchant.
pub(super) const OTHER_MERCHANT: &str = "mstore-verify-2";

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) actor: String,
    pub(super) action: String,
    /// As it is sent.
    pub(super) topic: String,
    /// As it is printed.
    pub(super) shown: String,
    pub(super) is_allowed: bool,
}

impl Case {
    /// What kind of case it is: the letter of its name.
    pub(super) fn kind(&self) -> char {
        self.name.chars().next().unwrap_or_default()
    }
}

/// All cases, or those whose names begin with one of `only`.
pub(super) fn cases(env: &str, only: &[String]) -> Vec<Case> {
    let mut reader = csv::Reader::from_reader(ACL_MATRIX.as_bytes());
    let records = reader.records().filter_map(Result::ok);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let case = |record: csv::StringRecord| {
        let field = |at: usize| record.get(at).unwrap_or_default().to_owned();
        let shown = translate(&field(3), env);
        // The matrix describes two topics instead of spelling them out.
        let topic = match field(3).as_str() {
            r#"prod/ + 300 levels of "a/""# => format!("{env}/{}", "a/".repeat(300)),
            r#"65535 x "x""# => "x".repeat(65_535),
            _spelt => shown.clone(),
        };
        Case { name: field(0), actor: field(1), action: field(2), topic, shown, is_allowed: field(4) == "allow" }
    };
    records.map(case).filter(|case| wanted(&case.name)).collect()
}

/// The matrix speaks of env `prod`, another env `dev`, merchants `m1` and `m2`.
pub(super) fn translate(text: &str, env: &str) -> String {
    let other = other_env(env);
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            word.push(c);
            continue;
        }
        out.push_str(match word.as_str() {
            "prod" => env,
            "dev" => &other,
            "m1" => MERCHANT,
            "m2" => OTHER_MERCHANT,
            same => same,
        });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

fn other_env(env: &str) -> String {
    format!("not-{env}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_speaks_of_this_deployment() {
        let all = cases("live", &[]);
        assert_eq!(all.len(), 65, "the matrix has lost or won cases");
        let topic = |name: &str| all.iter().find(|case| case.name == name).map(|case| case.topic.as_str()).unwrap_or_default();
        assert_eq!(topic("S12"), "live/mstore-verify/+/product/updates");
        assert_eq!(topic("S24"), "live.mstore-verify.b2.product.updates");
        assert_eq!(topic("S09"), "not-live/mstore-verify/b1/product/updates");
        assert_eq!(topic("S18"), "$share/g/live/mstore-verify/b2/product/updates");
        assert_eq!(topic("K02"), "live/mstore-verify-2/b7/transaction/updates");
        assert_eq!((topic("S10"), topic("C01"), topic("S28")), ("#", "-", "/live/mstore-verify/b1/product/updates"));
        assert_eq!((topic("S27").len(), topic("S26").matches('/').count()), (65_535, 301));
        assert_eq!(cases("live", &["C05".into(), "L".into()]).len(), 6);
    }
}
