//! Recipes: which inventory items a unit sold of a product consumes.

use axum::{Json as Answer, extract};
use mstore_protocol::{MerchantId, Problem, Quantity};
use mstore_store::{RecipeLine, SourceWrite};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    super::{State, body::Json, caller::Admin, extract::Names, problem::Refusal},
    WriteAnswer, write,
};

/// A product's recipe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipeBody {
    /// Its ingredients; none takes the recipe away.
    lines: Vec<Ingredient>,
}

/// One ingredient.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ingredient {
    /// The inventory item.
    item_id: String,
    /// How much of it goes into one unit sold.
    #[schema(value_type = String)]
    quantity: Quantity,
}

/// Say what a product is made of; replaces the former recipe.
#[utoipa::path(
    put,
    path = "/v1/admin/merchants/{merchant}/products/{id}/recipe",
    tag = "admin",
    operation_id = "put_recipe",
    params(("merchant" = String, Path), ("id" = String, Path)),
    request_body = RecipeBody,
    responses((status = 200, body = WriteAnswer), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("admin" = [])),
)]
pub(crate) async fn put(
    extract::State(app): State,
    _: Admin,
    Names((merchant, product_id)): Names<(MerchantId, String)>,
    Json(body): Json<RecipeBody>,
) -> Result<Answer<WriteAnswer>, Refusal> {
    let lines = body.lines.into_iter().map(|Ingredient { item_id, quantity }| RecipeLine { item_id, quantity }).collect();
    write(&app, SourceWrite::PutRecipe { merchant, product_id, lines }).await
}
