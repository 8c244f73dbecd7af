//! Another token for this device: asked for by the app, or by the server because the one here grows old. It is on disk before it is used.

use std::sync::Arc;

use mstore_engine::Input;
use mstore_protocol::Enrolment;

use super::{Done, Driver, with_db};
use crate::{
    error::OpenError,
    http::{Api, CallError},
    shared::{Shared, held},
};

/// An enrolment with another token, and the calls that carry it.
#[derive(Debug)]
pub(crate) struct Renewed {
    enrolment: Enrolment,
    api: Arc<Api>,
}

/// Gets the next token and keeps it. Until it is used for the first time the old one works, and asking again gives the same one: nothing is lost with an answer.
pub(crate) async fn renew(shared: &Shared, server_url: &str, api: &Api) -> Result<Renewed, OpenError> {
    let unreachable = |detail: String| OpenError::Unreachable { url: server_url.to_owned(), detail };
    let rotation = api.rotate().await.map_err(|error| match error {
        CallError::Status { problem: Some(problem), .. } => OpenError::Refused(*problem),
        CallError::Status { status, .. } => unreachable(format!("status {status}")),
        CallError::Network(detail) => unreachable(detail),
    })?;
    let enrolment = Enrolment { token: rotation.token, ..held(&shared.enrolment).clone() };
    let api = Arc::new(api.renewed(&enrolment)?);
    let text = serde_json::to_string(&enrolment).expect("an enrolment is always JSON");
    with_db(&shared.db, true, move |db| db.set_state("enrolment", &text)).await?;
    *held(&shared.enrolment) = enrolment.clone();
    Ok(Renewed { enrolment, api })
}

impl Driver {
    pub(super) fn rotate_if(&mut self, is_wanted: bool) {
        if !is_wanted {
            return;
        }
        let (shared, api) = (Arc::clone(&self.shared), Arc::clone(&self.api));
        self.calls.spawn(async move {
            let renewed = renew(&shared, "the server", &api).await.inspect_err(|error| {
                tracing::warn!(%error, "the token grows old, and there is no other one yet; the next report asks again");
            });
            Done::Rotated(renewed.ok().map(Box::new))
        });
    }

    /// Uses another token from now on: subscribes anew, then asks for what it missed meanwhile.
    pub(super) fn renew(&mut self, renewed: Option<Box<Renewed>>) {
        let Some(renewed) = renewed else { return };
        let Renewed { enrolment, api } = *renewed;
        tracing::info!(device = %enrolment.device_id, branch = %enrolment.branch, "this device has another token");
        (self.enrolment, self.api) = (enrolment, api);
        if self.link.take().is_some() {
            self.inputs.push_back(Input::Disconnected);
        }
        self.inputs.push_back(Input::NetworkChanged { available: true });
    }
}
