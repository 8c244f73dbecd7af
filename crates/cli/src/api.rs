//! The server's HTTP API as an administrator sees it.

use std::{path::Path, time::Duration};

use mstore_protocol::{Code, Problem};
use reqwest::{Method, RequestBuilder, Response};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{args::AdminArgs, failure::Failure};

/// A client with the admin token.
#[derive(Clone)]
pub(crate) struct AdminApi {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl AdminApi {
    /// A client for `base` (`http://host:port`).
    pub(crate) fn new(base: &str, token: &str) -> Result<Self, Failure> {
        Self::trusting(base, token, None)
    }

    /// The same, that believes nobody but the authorities of a PEM file.
    fn trusting(base: &str, token: &str, authorities: Option<&Path>) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder();
        if let Some(path) = authorities {
            builder = builder.tls_certs_only(certificates(path)?);
        }
        let http = builder
            .tcp_nodelay(true)
            // A redirect could lead the token to where it may not go.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Failure::unavailable(format!("no HTTP client: {error}")))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: token.trim().to_owned() })
    }

    /// From the command line: the token comes from the environment or its file.
    pub(crate) fn from_args(args: &AdminArgs) -> Result<Self, Failure> {
        if !args.profile.allows(&args.server) {
            return Err(Failure::usage(format!(
                "{} would take the admin token across the network in the clear ({})",
                args.server,
                Code::InsecureUrl
            ))
            .next("use an https:// address, or --profile development on a network that you trust"));
        }
        let token = match std::env::var("MSTORE_ADMIN_TOKEN") {
            Ok(token) => token,
            Err(_) => std::fs::read_to_string(&args.admin_token_file).map_err(|error| {
                Failure::usage(format!("the admin token file {} cannot be read: {error}", args.admin_token_file.display()))
                    .next("give --admin-token-file DATA_DIR/admin.token, or set MSTORE_ADMIN_TOKEN")
            })?,
        };
        Self::trusting(&args.server, &token, args.ca.as_deref())
    }

    /// Whether the token comes from the environment, and not from a file.
    pub(crate) fn has_token_in_environment() -> bool {
        std::env::var_os("MSTORE_ADMIN_TOKEN").is_some()
    }

    /// Where the server is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| {
            Failure::unavailable(format!("no answer from {}: {}", self.base, root_cause(&error)))
                .next("is it running? start it: mstore-sync serve")
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice::<Problem>(&body)
            .unwrap_or_else(|_| Problem { status, ..Problem::new(Code::Unknown, format!("{} answered {status}", self.base)) });
        Err(problem.into())
    }

    /// GET, parsed.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        parse(self.send(self.request(Method::GET, path)).await?).await
    }

    /// POST of JSON, parsed; an empty answer is `null`.
    pub(crate) async fn post<B: Serialize + Sync>(&self, path: &str, body: &B) -> Result<Value, Failure> {
        parse(self.send(self.request(Method::POST, path).json(body)).await?).await
    }

    /// PUT of JSON, parsed; an empty answer is `null`.
    pub(crate) async fn put<B: Serialize + Sync>(&self, path: &str, body: &B) -> Result<Value, Failure> {
        parse(self.send(self.request(Method::PUT, path).json(body)).await?).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.request(Method::DELETE, path)).await.map(|_| ())
    }

    /// GET whose body goes on and on.
    pub(crate) async fn stream(&self, path: &str) -> Result<Response, Failure> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Every item of a paged listing.
    pub(crate) async fn list_all(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let rest = after.as_ref().map_or_else(String::new, |after| format!("&after={}", encode(after)));
            let mut page: Value = self.get(&format!("{path}{joint}limit=1000{rest}")).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 §2.3), for path segments and query values.
pub(crate) fn encode(raw: &str) -> String {
    raw.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

async fn parse<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let body = response.bytes().await.map_err(|error| Failure::unavailable(format!("the answer broke off: {error}")))?;
    let text: &[u8] = if body.is_empty() { b"null" } else { &body };
    serde_json::from_slice(text).map_err(|error| Failure::unavailable(format!("an answer this version does not understand: {error}")))
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::usage(format!("--ca {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
    if certificates.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(certificates) }
}

/// The innermost reason, without the URL that the sentence names already.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_what_a_path_cannot_hold() {
        assert_eq!(encode("SKU 1/ä.b"), "SKU%201%2F%C3%A4.b");
    }
}
