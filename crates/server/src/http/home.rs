//! `/`: a plain page for whoever opens the server in a browser.

use axum::{extract, response::Html};

use super::{
    State,
    enrol::{http_url, mqtt_url, ws_url},
};

/// What runs here and where to go on.
#[utoipa::path(get, path = "/", tag = "operations", responses((status = 200, content_type = "text/html", body = String)))]
pub(crate) async fn home(extract::State(app): State) -> Html<String> {
    let (http, mqtt, ws, env) = (http_url(&app, None), mqtt_url(&app, None), ws_url(&app, None), &app.config.env);
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>MStore Sync</title>\
         <style>body{{font:16px/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}}code{{background:#eee;padding:0 .3em}}</style>\
         <h1>MStore Sync</h1><p>Keeps the tills of every branch true. Env <code>{env}</code>.</p><ul>\
         <li>HTTP <code>{http}</code></li><li>MQTT <code>{mqtt}</code></li><li>WebSocket <code>{ws}</code></li></ul><ul>\
         <li><a href=/openapi.json>/openapi.json</a>: every endpoint</li><li><a href=/readyz>/readyz</a>: can it do its work?</li>\
         <li><a href=/healthz>/healthz</a>: does it run?</li><li><a href=/metrics>/metrics</a>: figures for Prometheus</li></ul>\
         <p>Next: <code>mstore-sync device add</code> makes a claim code for a till.</p></html>"
    ))
}
