//! What a till tells of itself: how it is doing, and what it decided about rejected operations.

use mstore_protocol::{DeadLetterAnswer, DeadLetterReport, DeviceReport, ROTATE_HEADER};
use reqwest::{Method, header::CONTENT_TYPE};

use super::{Api, CallError};

impl Api {
    /// Whether the device should get another token now.
    pub(crate) async fn report(&self, report: &DeviceReport) -> Result<bool, CallError> {
        let body = serde_json::to_vec(report).expect("a report is always JSON");
        let request = self.request(Method::POST, "/v1/devices/self/report").header(CONTENT_TYPE, "application/json").body(body);
        let response = self.send(request).await?;
        let is_to_rotate = response.headers().contains_key(ROTATE_HEADER);
        self.body(response).await.map(|_| is_to_rotate)
    }

    pub(crate) async fn settle_dead_letters(&self, report: &DeadLetterReport) -> Result<DeadLetterAnswer, CallError> {
        let body = serde_json::to_vec(report).expect("a report is always JSON");
        let path = format!("{}/dead-letters", self.branch);
        self.json(self.request(Method::POST, &path).header(CONTENT_TYPE, "application/json").body(body)).await
    }
}
