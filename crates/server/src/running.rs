//! Starting and stopping a server: everything is bound when `start` returns, nothing accepted is lost when `shutdown` does.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mstore_broker::{Dynsec, Emqx, ListenAddrs, Nats, RabbitMq, Registrar, RegistrarError, Visitors};
use mstore_protocol::Profile;
use mstore_store::{FileToken, Store, StoreError};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    BrokerAccounts, BrokerConfig, HooksConfig, ServerConfig, ServerLimits,
    answers::Answers,
    auth::Directory,
    broker_slot::BrokerSlot,
    exposure::exposed,
    hooks::{self, Hooks},
    http::{App, router},
    listen::Entrance,
    meters::Meters,
    renewal::Renewal,
    steward::Steward,
    tail::Tail,
    tasks,
    webhook::Webhook,
};

/// The background tasks end within this after they were told to.
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// Why a server did not start; nothing is left listening.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The broker did not start.
    #[error("the MQTT broker: {0}")]
    Broker(#[from] mstore_broker::StartError),
    /// Operations cannot be delivered like this.
    #[error("the webhook: {0}")]
    Webhook(String),
    /// What keeps an external broker's accounts does not work like this.
    #[error("the broker's accounts: {0}")]
    Accounts(#[from] RegistrarError),
    /// The address where a broker asks.
    #[error("the listener of the hooks: {0}")]
    Hooks(#[source] io::Error),
    /// The admin token could not be taken up.
    #[error("the admin token: {0}")]
    Token(#[from] StoreError),
    /// The HTTP listener is not usable.
    #[error("the HTTP listener: {0}")]
    Http(#[source] io::Error),
}

/// A running server. Dropping it without [`Running::shutdown`] stops it without waiting: the outbox keeps what was not sent.
pub struct Running {
    app: Arc<App>,
    http: JoinHandle<()>,
    hooks: Option<(SocketAddr, JoinHandle<()>)>,
    tasks: JoinSet<()>,
    stop_http: CancellationToken,
    stop_tasks: CancellationToken,
    _guards: [DropGuard; 2],
}

impl Server {
    /// Serves the store on a bound listener and starts the broker. The store is closed by [`Running::shutdown`].
    pub async fn start(config: ServerConfig, store: Arc<dyn Store>, http: TcpListener) -> Result<Running, StartError> {
        let http_addr = http.local_addr().map_err(StartError::Http)?;
        take_file_token(&config, &*store).await?;
        let master_key = config.secrets.master_key.clone();
        let directory = Directory::new(store.clone(), master_key, config.env.clone(), config.clock.clone());
        let directory = Arc::new(directory.with_max_age(config.device_token_max_age));
        let webhook = config.webhook.clone().map(|webhook| Webhook::new(webhook, config.profile)).transpose();
        let webhook = webhook.map_err(StartError::Webhook)?.map(Arc::new);
        let asked = match config.accounts.hooks() {
            Some(hooks) => Some(TcpListener::bind(hooks.listen).await.map_err(StartError::Hooks)?),
            None => None,
        };
        let steward = registrar(&config)?.map(|registrar| Steward::new(registrar, directory.clone(), config.timing.survey_interval));
        let broker = Arc::new(BrokerSlot::start(config.broker.clone(), directory.clone(), steward.map(Arc::new)).await?);
        let hooks = config.accounts.hooks().map(|hooks| Arc::new(make_hooks(hooks, &config, &directory)));
        let (stop_http, stop_tasks) = (CancellationToken::new(), CancellationToken::new());
        let limits = config.limits.clone();
        let app = Arc::new(App {
            answers: Answers::new(store.clone(), limits.answers_bytes_max),
            rates: crate::http::Rates::new(&limits),
            requests: Visitors::new(limits.requests_max, limits.requests_per_address_max),
            renewal: config.certificate.clone().map(Renewal::new),
            proof: Default::default(),
            fleet: Default::default(),
            levels: Default::default(),
            tail: Arc::new(Tail::new()),
            meters: Arc::new(Meters::new()),
            failed_task: std::sync::OnceLock::new(),
            webhook,
            stopping: stop_http.clone(),
            config: Arc::new(config),
            store,
            directory,
            broker,
            http_addr,
        });
        let tasks = tasks::start(&app, &stop_tasks);
        let hooks = asked.zip(hooks).map(|(listener, hooks)| serve_hooks(listener, hooks, &limits, &stop_http)).transpose()?;
        let entrance = Entrance::public(&limits, &app.config.proxies, app.config.certificate.as_ref());
        let http = tokio::spawn(entrance.serve(http, router(&app), stop_http.clone()));
        let guards = [stop_http.clone().drop_guard(), stop_tasks.clone().drop_guard()];
        tracing::info!(http = %http_addr, env = %app.config.env, profile = %app.config.profile, "server started");
        let running = Running { app, http, hooks, tasks, stop_http, stop_tasks, _guards: guards };
        for url in running.exposed_urls() {
            tracing::warn!(
                url,
                "devices are told a URL that takes their tokens across the network in the clear; they refuse it in the production profile"
            );
        }
        Ok(running)
    }
}

/// Makes the token of the server's file a platform token, unless it was one and ended.
async fn take_file_token(config: &ServerConfig, store: &dyn Store) -> Result<(), StoreError> {
    let name = &config.file_token_name;
    match store.keep_file_token(name, config.secrets.admin_token.hash()).await? {
        FileToken::Kept => {}
        FileToken::Replaced => {
            tracing::warn!(token = name, "the file holds another admin token than before: that one opens nothing any more")
        }
        FileToken::Ended => tracing::warn!(token = name, "the admin token in the file was rotated or revoked: it opens nothing"),
    }
    Ok(())
}

/// What keeps an external broker's accounts.
fn registrar(config: &ServerConfig) -> Result<Option<Arc<dyn Registrar>>, RegistrarError> {
    Ok(match &config.accounts {
        BrokerAccounts::Operators => None,
        BrokerAccounts::Mosquitto(account) => Some(Arc::new(Dynsec::start(account.clone()))),
        BrokerAccounts::RabbitMq(_, api) => Some(Arc::new(RabbitMq::new(api.clone())?)),
        BrokerAccounts::Emqx(_, api) => Some(Arc::new(Emqx::new(api.clone())?)),
        BrokerAccounts::Nats(nats) => Some(Arc::new(Nats::new(nats.clone())?)),
    })
}

/// What a broker asks, answered for the devices and for the server's own accounts there.
fn make_hooks(hooks: &HooksConfig, config: &ServerConfig, directory: &Arc<Directory>) -> Hooks {
    let (backend, canary) = match &config.broker {
        BrokerConfig::Embedded(_) => (None, None),
        BrokerConfig::External(way) => (way.login.clone(), way.canary.clone()),
    };
    Hooks::new(hooks, directory.clone(), &config.env, backend, canary)
}

fn serve_hooks(
    listener: TcpListener,
    asked: Arc<Hooks>,
    limits: &ServerLimits,
    stop: &CancellationToken,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let addr = listener.local_addr().map_err(StartError::Hooks)?;
    tracing::info!(%addr, "a broker may ask here who may do what");
    Ok((addr, tokio::spawn(Entrance::private(limits).serve(listener, hooks::router(asked), stop.clone()))))
}

impl Running {
    /// Where HTTP is served.
    pub fn http_addr(&self) -> SocketAddr {
        self.app.http_addr
    }

    /// Where an external broker asks, if it does.
    pub fn hooks_addr(&self) -> Option<SocketAddr> {
        self.hooks.as_ref().map(|(addr, _)| *addr)
    }

    /// Reads the certificate's files again, as is done every minute; says in the log what came of it.
    pub fn reload_certificate(&self) {
        if let Some(renewal) = &self.app.renewal {
            renewal.look((self.app.config.clock)());
        }
    }

    /// Where plain MQTT is served, if it is.
    pub fn mqtt_addr(&self) -> Option<SocketAddr> {
        self.broker_addrs().tcp
    }

    /// Where MQTT over WebSocket is served.
    pub fn ws_addr(&self) -> Option<SocketAddr> {
        self.broker_addrs().ws
    }

    /// All of the broker's addresses, TLS included.
    pub fn broker_addrs(&self) -> ListenAddrs {
        self.app.broker.addrs()
    }

    /// What devices are told to connect to.
    pub fn mqtt_url(&self) -> String {
        crate::http::mqtt_url(&self.app, None)
    }

    /// The same over WebSocket; empty without a listener.
    pub fn ws_url(&self) -> String {
        crate::http::ws_url(&self.app, None)
    }

    /// `http://…` as callers on this machine reach it, or as configured.
    pub fn http_url(&self) -> String {
        crate::http::http_url(&self.app, None)
    }

    /// URLs that devices are told and that would take their tokens across a network in the clear; none in the development profile.
    pub fn exposed_urls(&self) -> Vec<String> {
        match self.app.config.profile {
            Profile::Production => {
                let mut urls = exposed(&self.app.config.public, &self.http_url(), &self.broker_addrs());
                let external = self.app.broker.external_url().filter(|_| self.app.config.public.mqtt.is_none());
                urls.extend(external.map(ToString::to_string).filter(|url| !Profile::Production.allows(url)));
                urls
            }
            Profile::Development => Vec::new(),
        }
    }

    /// Devices connected over MQTT now.
    pub async fn connected(&self) -> usize {
        self.app.broker.stats().await.map_or(0, |stats| stats.connected)
    }

    /// Stops the broker and starts it again on the same addresses; devices are cut off and come back.
    pub async fn broker_restart(&self) -> Result<(), StartError> {
        Ok(self.app.broker.restart().await?)
    }

    /// Stops the broker; HTTP goes on and the outbox gathers what is not sent. [`Self::broker_restart`] brings it back.
    pub async fn broker_stop(&self) {
        self.app.broker.stop().await;
    }

    /// Accepts nothing new, finishes what is under way, publishes what is committed, closes the store.
    pub async fn shutdown(mut self) {
        tracing::info!("shutting down");
        self.stop_http.cancel();
        if let Err(error) = (&mut self.http).await {
            tracing::error!(%error, "http server failed");
        }
        if let Some((_, hooks)) = self.hooks.take()
            && let Err(error) = hooks.await
        {
            tracing::error!(%error, "the listener of the hooks failed");
        }
        self.stop_tasks.cancel();
        if timeout(TASKS_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("background work did not end in time");
            self.tasks.abort_all();
        }
        self.app.broker.stop().await;
        if let Err(error) = self.app.store.close().await {
            tracing::error!(%error, "store not closed cleanly");
        }
        tracing::info!("server stopped");
    }
}
