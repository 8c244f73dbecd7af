//! All routes in one place. Whatever is not a route, or panics, answers with a problem too.

use std::{any::Any, net::Ipv4Addr, sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use mstore_protocol::Code;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App, admin, changes, dead_letters, digests, drain, enrol, events, head, health, home, openapi, operations,
    parameters::{self, Parameters},
    problem::Refusal,
    rate_limit, report, rotate, rows, web,
};
use crate::listen::Peer;

/// The service that answers every request.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let (router, document) = routed().split_for_parts();
    let text = document.to_json().expect("the document is always JSON");
    let known = Parameters::of(&document);
    router
        .merge(web::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(Extension(openapi::DocumentText(text.into())))
        .layer(middleware::from_fn(move |request: Request, next: Next| parameters::known_only(known.clone(), request, next)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), rate_limit::wrong_logins))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(middleware::from_fn_with_state(app.clone(), drain::drain))
        .with_state(app.clone())
}

/// The document of the same routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    routed().split_for_parts().1
}

fn routed() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(changes::changes))
        .routes(routes!(head::head))
        .routes(routes!(digests::digests))
        .routes(routes!(rows::rows))
        .routes(routes!(operations::operations))
        .routes(routes!(dead_letters::settle))
        .routes(routes!(events::events))
        .routes(routes!(enrol::enrol))
        .routes(routes!(report::report))
        .routes(routes!(rotate::rotate))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::openapi))
        .routes(routes!(home::home))
        .merge(admin::routes())
}

async fn no_route(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::with_status(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "no message".to_owned());
    Refusal::internal("a request panicked", &text).into_response()
}

/// Bounds the requests worked on at one time; counts and times them.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let address = request.extensions().get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(peer)| peer.ip());
    let response = match app.requests.enter(address, app.config.proxies.contains(&address)) {
        Some(_under_way) => next.run(request).await,
        None => Refusal::new(Code::Unavailable, "too many requests at one time").into_response(),
    };
    let (status, took) = (response.status().as_u16(), started.elapsed());
    app.meters.request(&route, method.as_str(), status, took);
    tracing::debug!(route, method = method.as_str(), status, us = took.as_micros(), "http request");
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_handler_of_the_source_is_routed() {
        let document = document();
        let operations: usize = document
            .paths
            .paths
            .values()
            .map(|item| [&item.get, &item.put, &item.post, &item.delete].into_iter().filter(|operation| operation.is_some()).count())
            .sum();
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
        assert_eq!(operations, handlers(&sources), "a handler with #[utoipa::path] is not in the router");
    }

    fn handlers(dir: &std::path::Path) -> usize {
        let attribute = ["#[utoipa", "::path("].concat();
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| if path.is_dir() { handlers(&path) } else { std::fs::read_to_string(&path).unwrap().matches(&attribute).count() })
            .sum()
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_hides_its_text() {
        async fn boom() -> &'static str {
            panic!("secret text")
        }
        let router: Router = Router::new().route("/", axum::routing::get(boom)).layer(CatchPanicLayer::custom(panicked));
        let answer = tower::ServiceExt::oneshot(router, Request::new(axum::body::Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let problem: mstore_protocol::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.code, Code::Internal);
        assert!(!problem.detail.contains("secret"));
    }

    #[test]
    fn the_document_names_what_it_refers_to() {
        let text = document().to_json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let schemas = json["components"]["schemas"].as_object().unwrap();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name} is referred to but not there");
        }
    }
}
