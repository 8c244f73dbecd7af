//! The pages for browsers: files built from `web/`, embedded, with headers that let them talk to this server and to nobody else.

use std::sync::Arc;

use axum::{
    Router, extract,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};

use super::{App, State, enrol::ws_url, problem::Refusal};

/// Paths below `crates/server/web`, and what is in them.
static PAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Names of files under `assets/` change with their content.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_EVERY_TIME: HeaderValue = HeaderValue::from_static("no-cache");

/// The web till. None of this is part of the API, so none of it is in the document.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        // Relative to the address of the page, which therefore ends with a slash.
        .route("/till", get(async || Redirect::permanent("/till/")))
        .route("/till/", get(till))
        .route("/till/{*path}", get(till_file))
}

async fn till(extract::State(app): State, headers: HeaderMap) -> Response {
    file(&app, &headers, "till/index.html").unwrap_or_else(not_built)
}

async fn till_file(extract::State(app): State, headers: HeaderMap, extract::Path(path): extract::Path<String>) -> Response {
    let missing = || Refusal::not_found(format!("there is no /till/{path}")).into_response();
    file(&app, &headers, &format!("till/{path}")).unwrap_or_else(missing)
}

fn file(app: &App, asked: &HeaderMap, name: &str) -> Option<Response> {
    let (_, body) = PAGES.iter().find(|(known, _)| *known == name)?;
    let kept = if name.contains("/assets/") { FOR_EVER } else { ASK_EVERY_TIME };
    let headers = [(header::CONTENT_TYPE, content_type(name)), (header::CACHE_CONTROL, kept)];
    let host = asked.get(header::HOST).and_then(|host| host.to_str().ok());
    Some((headers, guards(&ws_url(app, host)), *body).into_response())
}

fn content_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    })
}

/// What a page may load and whom it may call: its own server, and the broker's WebSocket.
fn guards(ws_url: &str) -> [(HeaderName, HeaderValue); 4] {
    let broker = origin(ws_url).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; worker-src 'self'; \
         connect-src 'self' {broker}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ]
}

/// `ws://host:port` of a URL; none if it holds anything that does not belong into a header of this kind.
fn origin(url: &str) -> Option<&str> {
    let after_scheme = url.find("://")? + 3;
    let end = url[after_scheme..].find('/').map_or(url.len(), |slash| after_scheme + slash);
    let origin = &url[..end];
    let is_plain = origin.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-[]:/".contains(&byte));
    (is_plain && (origin.starts_with("ws://") || origin.starts_with("wss://"))).then_some(origin)
}

/// A server that was compiled without Node beside it.
fn not_built() -> Response {
    let page = "<!doctype html><html lang=en><meta charset=utf-8><title>The web till</title><h1>The web till is not in this build</h1>\
        <p>Build it with <code>cargo xtask web</code> (Node 20 or later), then compile the server again.</p></html>";
    (StatusCode::NOT_FOUND, Html(page)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_call_its_broker_and_nobody_else() {
        let cases = [
            ("ws://127.0.0.1:8083/mqtt", Some("ws://127.0.0.1:8083")),
            ("wss://mqtt.example/mqtt", Some("wss://mqtt.example")),
            ("wss://mqtt.example", Some("wss://mqtt.example")),
            ("", None),
            ("https://evil.example/", None),
            ("wss://a; script-src *", None),
        ];
        for (url, expected) in cases {
            assert_eq!(origin(url), expected, "{url}");
        }
        let [(_, policy), ..] = guards("ws://127.0.0.1:8083/mqtt");
        let policy = policy.to_str().unwrap_or_default();
        assert!(policy.contains("connect-src 'self' ws://127.0.0.1:8083;") && !policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn every_embedded_file_has_a_type_that_browsers_run() {
        for (name, _) in PAGES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }
}
