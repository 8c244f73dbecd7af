//! `/openapi.json`: generated from the endpoints themselves, so that a route cannot be missing.

use axum::{
    extract::Extension,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use mstore_protocol::{Operation, OperationId, Quantity};
use serde::Serialize;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        Components,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// The parts of the document that no endpoint brings along.
#[derive(OpenApi)]
#[openapi(
    info(title = "MStore Sync", description = "Tills in sync: changes reach devices in milliseconds, sales reach the backend exactly once."),
    modifiers(&Schemes),
    tags(
        (name = "device", description = "Called by tills with `Authorization: Bearer <device_id>:<token>`"),
        (name = "backend", description = "Called by backends that share no database"),
        (name = "admin", description = "Called by operators with an admin token"),
        (name = "operations", description = "Called by supervisors and dashboards"),
    ),
    components(schemas(ChangesLine, mstore_protocol::ChangesFirst, mstore_protocol::ChangesEnd, mstore_protocol::Code)),
)]
pub(crate) struct Document;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        for (name, text) in [("device", "`<device_id>:<token>`"), ("admin", "An admin token")] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// A row line of `/changes`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangesLine {
    /// The collection.
    c: String,
    /// `put` or `delete`.
    op: String,
    /// The row's id.
    id: String,
    /// The commit that last changed the row.
    seq: u64,
    /// Where to resume after this line; opaque.
    p: String,
    /// The row; absent for a delete.
    #[schema(value_type = Option<Object>)]
    row: Option<serde_json::Value>,
}

/// An upload.
#[derive(Serialize, ToSchema)]
pub(crate) struct UploadBody {
    /// Random identity of the local database; `device_seq` is dense within it.
    journal_id: String,
    /// Server clock minus device clock as the device measured it, milliseconds.
    clock_offset_ms: i64,
    /// At most 500.
    operations: Vec<Operation>,
}

/// A change told by a backend that shares no database.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "the endpoint reads `mstore_protocol::EventRequest`, which has the same shape")]
pub(crate) enum EventBody {
    /// The stock of a product.
    ProductStockUpdated { idempotency_key: String, version: u64, product_id: String, stock: Quantity, ops: Vec<OperationId> },
    /// The quantity of an inventory item.
    InventoryUpdated { idempotency_key: String, version: u64, item_id: String, quantity: Quantity, ops: Vec<OperationId> },
    /// A transaction row.
    TransactionCreated {
        idempotency_key: String,
        version: u64,
        #[schema(value_type = Object)]
        transaction: serde_json::Value,
        ops: Vec<OperationId>,
    },
}

/// The document's text, made once per router.
#[derive(Clone)]
pub(crate) struct DocumentText(pub(crate) Bytes);

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(crate) async fn openapi(Extension(DocumentText(text)): Extension<DocumentText>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The OpenAPI document, for tools that want it without a running server.
pub fn openapi_json() -> String {
    super::router::document().to_json().expect("the document is always JSON")
}
