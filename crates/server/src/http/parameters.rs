//! Query parameters that a route does not know: refused with what they may have meant, from the very document that `/openapi.json` shows.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{MatchedPath, Query, Request},
    http::Method,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use mstore_protocol::did_you_mean;
use utoipa::openapi::{
    OpenApi, RefOr,
    path::{Operation, Parameter, ParameterIn},
};

use super::problem::Refusal;

/// Pages for browsers and probes may be asked for with anything.
const CHECKED: &str = "/v1/";

/// The names of the parameters of a path, by method.
type ByMethod = Vec<(Method, Vec<String>)>;

/// The parameters of every route, by path and method.
#[derive(Clone)]
pub(super) struct Parameters(Arc<HashMap<String, ByMethod>>);

impl Parameters {
    pub(super) fn of(document: &OpenApi) -> Self {
        let routes = document.paths.paths.iter().map(|(path, item)| {
            let methods = [
                (Method::GET, &item.get),
                (Method::HEAD, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
            ];
            let known = methods.into_iter().filter_map(|(method, operation)| Some((method, names(operation.as_ref()?))));
            (path.clone(), known.collect())
        });
        Self(Arc::new(routes.collect()))
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        if request.uri().query().is_none_or(str::is_empty) || !request.uri().path().starts_with(CHECKED) {
            return Ok(());
        }
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
        let methods = self.0.get(path.as_str()).map_or(&[][..], Vec::as_slice);
        let Some((_, known)) = methods.iter().find(|(method, _)| method == request.method()) else { return Ok(()) };
        let Query(asked) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())?;
        match asked.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                let hint = did_you_mean(name, known.iter().map(String::as_str));
                Err(Refusal::malformed(format!("the query: unknown parameter {shown:?}; {hint}")))
            }
        }
    }
}

fn names(operation: &Operation) -> Vec<String> {
    let in_query = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => (parameter.parameter_in == ParameterIn::Query).then(|| parameter.name.clone()),
        RefOr::Ref(_) => None,
    };
    operation.parameters.iter().flatten().filter_map(in_query).collect()
}

/// Lets requests pass whose parameters are all known.
pub(super) async fn known_only(parameters: Parameters, request: Request, next: Next) -> Response {
    match parameters.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
