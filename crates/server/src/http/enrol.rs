//! `POST /v1/devices/enrol`: a claim code becomes a device with a token.

use std::net::SocketAddr;

use axum::{
    Extension, Json as Answer, extract,
    http::{HeaderMap, header},
};
use mstore_protocol::{Code, EnrolRequest, Enrolment, Problem, limits::TEXT_BYTES_MAX};

use super::{App, State, body::Json, problem::Refusal};
use crate::{ClaimCode, auth::Directory, listen::Peer};

/// Redeem a claim code. Repeating the same nonce gives the same answer: a lost reply burns nothing.
#[utoipa::path(
    post,
    path = "/v1/devices/enrol",
    tag = "device",
    request_body = EnrolRequest,
    responses(
        (status = 200, body = Enrolment),
        (status = 401, description = "`claim_refused`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many wrong codes from this address", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn enrol(
    extract::State(app): State,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Json(request): Json<EnrolRequest>,
) -> Result<Answer<Enrolment>, Refusal> {
    let now = (app.config.clock)();
    app.rates.claim(peer.ip(), now)?;
    if !(1..=TEXT_BYTES_MAX).contains(&request.nonce.len()) {
        return Err(Refusal::malformed(format!("nonce: 1 to {TEXT_BYTES_MAX} bytes of random text")));
    }
    let from = Some(peer.ip().to_canonical());
    let redeemed = match ClaimCode::parse(&request.code) {
        Some(code) => app.directory.redeem(code.hash(), &request.nonce, from).await.map_err(Refusal::from),
        None => Err(Refusal::new(Code::ClaimRefused, "this is not a claim code: 12 letters and digits")),
    };
    let record = redeemed.inspect_err(|refusal| {
        if refusal.code() == Code::ClaimRefused {
            app.rates.wrong_claim(peer.ip(), now);
            tracing::warn!(%peer, "claim refused");
        }
    })?;
    // Whoever was connected with an older token of this device is not this device any more.
    app.broker.kick(&record.device).await;
    tracing::info!(branch = %record.key, device = record.device.as_str(), %peer, "device enrolled");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    Ok(Answer(Enrolment {
        token: app.directory.token(&record),
        device_id: record.device,
        env: app.config.env.clone(),
        merchant: record.key.merchant,
        branch: record.key.branch,
        mqtt_url: mqtt_url(&app, host),
        ws_url: ws_url(&app, host),
        collections: Directory::collections(),
    }))
}

/// What devices open an MQTT connection to.
pub(crate) fn mqtt_url(app: &App, host: Option<&str>) -> String {
    let addrs = app.broker.addrs();
    let external = || app.broker.external_url().map(ToString::to_string);
    app.config.public.mqtt.clone().or_else(external).unwrap_or_else(|| match (addrs.tls, addrs.tcp) {
        (Some(tls), _) => format!("mqtts://{}", reachable(tls, host)),
        (None, Some(tcp)) => format!("mqtt://{}", reachable(tcp, host)),
        (None, None) => String::new(),
    })
}

/// The same over WebSocket; empty without a listener.
pub(crate) fn ws_url(app: &App, host: Option<&str>) -> String {
    let addrs = app.broker.addrs();
    app.config.public.ws.clone().unwrap_or_else(|| match (addrs.wss, addrs.ws) {
        (Some(wss), _) => format!("wss://{}/mqtt", reachable(wss, host)),
        (None, Some(ws)) => format!("ws://{}/mqtt", reachable(ws, host)),
        (None, None) => String::new(),
    })
}

/// Where callers find the HTTP API.
pub(crate) fn http_url(app: &App, host: Option<&str>) -> String {
    let scheme = if app.renewal.is_some() { "https" } else { "http" };
    app.config.public.http.clone().unwrap_or_else(|| format!("{scheme}://{}", reachable(app.http_addr, host)))
}

/// A listener on all interfaces is reached by the name that the caller used for this one.
fn reachable(addr: SocketAddr, host: Option<&str>) -> String {
    if !addr.ip().is_unspecified() {
        return addr.to_string();
    }
    // `[::1]:8080`, `shop.local:8080` or `shop.local`; a name with anything odd in it is not repeated.
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    });
    let plain = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b));
    format!("{}:{}", name.filter(plain).unwrap_or("127.0.0.1"), addr.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_are_told_an_address_that_they_can_reach() {
        let cases = [
            ("127.0.0.1:1883", Some("shop.local:8080"), "127.0.0.1:1883"),
            ("0.0.0.0:1883", Some("shop.local:8080"), "shop.local:1883"),
            ("0.0.0.0:1883", Some("10.0.0.7"), "10.0.0.7:1883"),
            ("[::]:1883", Some("[fe80::1]:8080"), "[fe80::1]:1883"),
            ("0.0.0.0:1883", Some("evil/../x"), "127.0.0.1:1883"),
            ("0.0.0.0:1883", None, "127.0.0.1:1883"),
        ];
        for (addr, host, expected) in cases {
            assert_eq!(reachable(addr.parse().unwrap(), host), expected);
        }
    }
}
