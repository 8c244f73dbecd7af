//! What brokers that decide for themselves ask before they let somebody in, subscribe or publish: on a listener of its own, for whoever knows the
//! secret. The answers are the policy's; nothing is decided here.

mod emqx;
mod rabbitmq;

use std::{fmt, net::SocketAddr, sync::Arc};

use axum::{Router, extract::DefaultBodyLimit, http::StatusCode, routing::post};
use mstore_broker::{Action, Decision, DeviceAuth as _, Login, Principal, decide};
use mstore_protocol::Env;

use crate::{auth::Directory, tokens::same_secret};

/// A question has a few hundred bytes, and a topic of 64 KiB at most.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Where brokers ask, and who may.
#[derive(Clone)]
pub struct HooksConfig {
    /// The private listener.
    pub listen: SocketAddr,
    /// What a broker shows.
    pub secret: HooksSecret,
    /// The name of RabbitMQ's virtual host, `/` by default.
    pub vhost: String,
}

impl fmt::Debug for HooksConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HooksConfig({}, {:?}, secret …)", self.listen, self.vhost)
    }
}

/// A secret that is part of a URL: letters, digits, `-` and `_`.
#[derive(Clone, PartialEq, Eq)]
pub struct HooksSecret(String);

impl HooksSecret {
    /// It has at least this many characters.
    pub const CHARS_MIN: usize = 16;

    /// Checks length and alphabet.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() >= Self::CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        fits.then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for HooksSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HooksSecret(…)")
    }
}

/// What every hook works with.
pub(crate) struct Hooks {
    directory: Arc<Directory>,
    secret: HooksSecret,
    vhost: String,
    /// The server's own accounts at the broker.
    own: Vec<(Login, Principal)>,
}

impl Hooks {
    pub(crate) fn new(config: &HooksConfig, directory: Arc<Directory>, env: &Env, backend: Option<Login>, canary: Option<Login>) -> Self {
        let backend = backend.map(|login| (login, Principal::Backend { env: env.clone() }));
        let canary = canary.map(|login| {
            let principal = Principal::Canary { name: login.username.clone(), env: env.clone() };
            (login, principal)
        });
        let own = backend.into_iter().chain(canary).collect();
        Self { directory, secret: config.secret.clone(), vhost: config.vhost.clone(), own }
    }

    fn knows(&self, secret: &str) -> bool {
        same_secret(secret.as_bytes(), &self.secret.0)
    }

    /// Who logs in. The server's own names are nobody else's: a later question has the name only, and would be answered for the server.
    async fn authenticate(&self, username: &str, password: &str) -> Option<Principal> {
        match self.own.iter().find(|(login, _)| login.username == username) {
            Some((login, principal)) => {
                let own = String::from_utf8_lossy(&login.password);
                same_secret(password.as_bytes(), &own).then(|| principal.clone())
            }
            None => self.directory.authenticate(username, password.as_bytes()).await,
        }
    }

    /// Who has logged in with this name, if they still may.
    async fn principal(&self, username: &str) -> Option<Principal> {
        match self.own.iter().find(|(login, _)| login.username == username) {
            Some((_, principal)) => Some(principal.clone()),
            None => self.directory.principal(username).await,
        }
    }

    /// Lets somebody in under a client id.
    async fn connect(&self, username: &str, password: &str, client_id: &str) -> Option<Principal> {
        let principal = self.authenticate(username, password).await?;
        // A broker does not tell of a will; what it would say is a publish, and refused as one.
        let decision = decide(&principal, &Action::Connect { client_id, has_will: false });
        if let Decision::Deny(why) = decision {
            tracing::info!(username, client_id, %why, "mqtt login refused");
            return None;
        }
        Some(principal)
    }
}

/// The routes, on their own listener.
pub(crate) fn router(hooks: Arc<Hooks>) -> Router {
    Router::new()
        .route("/hooks/rabbitmq/{secret}/{question}", post(rabbitmq::answer))
        .route("/hooks/emqx/authn", post(emqx::authenticate))
        .route("/hooks/emqx/authz", post(emqx::authorize))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(hooks)
}
