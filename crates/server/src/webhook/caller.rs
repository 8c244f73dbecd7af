//! One delivery over HTTP: signed, bounded in time and size, never redirected.

use std::time::Duration;

use mstore_protocol::{Delivery, OperationId};
use mstore_store::Due;
use reqwest::{
    Client,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    WebhookConfig, WebhookSecret,
    answer::{self, Said},
    signature::sign,
};

/// Of a backend's answer no more than this is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes deliveries.
pub(super) struct Caller {
    http: Client,
    url: String,
    secret: WebhookSecret,
    timeout: Duration,
}

impl Caller {
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        // The process may have installed one already: then that one is used.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = Client::builder();
        if config.url.starts_with("http:") {
            // Reading the system's certificates takes a while; who speaks plain HTTP trusts none.
            let nobody = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
            builder = builder.tls_backend_preconfigured(nobody);
        }
        let http = builder
            .no_proxy()
            .no_gzip()
            .no_zstd()
            // A sale goes to one address, wherever that may point.
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            .pool_max_idle_per_host(config.in_flight_max)
            .build()
            .map_err(|error| error.to_string())?;
        reqwest::Url::parse(&config.url).map_err(|error| format!("its URL: {error}"))?;
        Ok(Self { http, url: config.url.clone(), secret: config.secret.clone(), timeout: config.timeout })
    }

    /// Delivers an operation and reads what the backend says.
    pub(super) async fn deliver(&self, due: &Due, now_s: i64) -> Said {
        let body = match body(due) {
            Ok(body) => body,
            Err(error) => return Said::Refused(format!("what is in the inbox is not JSON: {error}")),
        };
        match timeout(self.timeout, self.post(body, due.id, due.attempts + 1, now_s)).await {
            Ok(Ok(said)) => said,
            // The library's text would name the URL, and a URL may hold credentials.
            Ok(Err(error)) => Said::Later(described(&error.without_url()), None),
            Err(_) => Said::Later(format!("no answer within {} ms", self.timeout.as_millis()), None),
        }
    }

    async fn post(&self, body: Vec<u8>, id: OperationId, attempt: u32, now_s: i64) -> Result<Said, reqwest::Error> {
        let request = self
            .http
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", id.to_string())
            .header("MStore-Timestamp", now_s)
            .header("MStore-Attempt", attempt)
            .header("MStore-Signature", sign(&self.secret, now_s, &body))
            .body(body);
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Ok(Said::Refused(format!("status {status} with an answer of more than {ANSWER_BYTES_MAX} bytes")));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer::read(status, retry_after.as_deref(), &answer))
    }
}

/// The same bytes at every attempt.
fn body(due: &Due) -> Result<Vec<u8>, serde_json::Error> {
    let delivery = Delivery {
        delivery: due.n,
        merchant: due.key.merchant.clone(),
        branch: due.key.branch.clone(),
        device: due.device.clone(),
        journal_id: due.journal_id.clone(),
        operation: RawValue::from_string(due.body.clone())?,
    };
    serde_json::to_vec(&delivery)
}

/// The cause, which the library keeps below.
fn described(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    if error.is_connect() { format!("not reached: {text}") } else { text }
}
