//! The call by which the till and the server agree on what becomes of rejected operations.

use mstore_protocol::{DeadLetterAnswer, DeadLetterReport};
use reqwest::{Method, header::CONTENT_TYPE};

use super::{Api, CallError};

impl Api {
    pub(crate) async fn settle_dead_letters(&self, report: &DeadLetterReport) -> Result<DeadLetterAnswer, CallError> {
        let body = serde_json::to_vec(report).expect("a report is always JSON");
        let path = format!("{}/dead-letters", self.branch);
        self.json(self.request(Method::POST, &path).header(CONTENT_TYPE, "application/json").body(body)).await
    }
}
