//! `serve`: the server with its configuration, its data directory and its listeners; prints every URL and what to try next.

use std::{net::SocketAddr, path::Path};

use mstore_broker::{BrokerLimits, EmbeddedConfig, TlsListen};
use mstore_server::{DataDir, DataDirError, Running, Server, ServerConfig, StartError, system_clock};
use mstore_store::sqlite::{SqliteConfig, SqliteStore};
use tokio::net::TcpListener;

use crate::{
    args::ServeArgs,
    config::{Config, RawConfig},
    failure::Failure,
    logging,
    server_process::Ready,
};

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let raw = RawConfig::merge(&args, |name| std::env::var(name).ok())?;
    let config = raw.check()?;
    if args.print_config {
        print!("{}", raw.render());
        return Ok(());
    }
    logging::start(&config.log, config.log_json)?;
    let started = start(&config).await?;
    if args.ready_json {
        println!("{}", serde_json::to_string(&started.ready()).map_err(|error| Failure::check(error.to_string()))?);
    } else {
        println!("{}", started.welcome());
    }
    stop_signal().await;
    tracing::info!("shutting down");
    started.running.shutdown().await;
    tracing::info!("stopped; everything accepted is on disk");
    Ok(())
}

/// A server of this process, and its data directory, which it keeps locked.
pub(crate) struct Started {
    pub(crate) running: Running,
    data: DataDir,
    tls: bool,
}

/// Opens the data directory and the store, binds every port, starts.
pub(crate) async fn start(config: &Config) -> Result<Started, Failure> {
    let data = DataDir::open(&config.data_dir).map_err(|error| {
        let next = match &error {
            DataDirError::NotWritable { .. } => "choose another --data-dir, or let this user write there",
            DataDirError::InUse { .. } | DataDirError::Damaged { .. } | DataDirError::SecretMissing { .. } => error.code().next_step(),
        };
        Failure::unavailable(error.to_string()).next(next)
    })?;
    let http = bind("listen", config.listen).await?;
    let clock = system_clock();
    let store = SqliteStore::open(SqliteConfig::new(data.database_path(), clock))
        .map_err(|error| Failure::unavailable(format!("the database {}: {error}", data.database_path().display())))?;
    let tls = config.tls.clone().map(|(cert, key)| TlsListen { addr: config.mqtt_listen, cert, key });
    let plain = tls.is_none().then_some(config.mqtt_listen);
    let mqtt = EmbeddedConfig { tcp: plain, ws: Some(config.ws_listen), tls, limits: BrokerLimits::default() };
    let mut server = ServerConfig::new(config.env.clone(), data.secrets().clone(), mqtt);
    server.profile = config.profile;
    let running = Server::start(server, store, http).await.map_err(|error| start_failure(&error))?;
    Ok(Started { running, data, tls: config.tls.is_some() })
}

async fn bind(name: &str, addr: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(addr).await.map_err(|error| {
        Failure::unavailable(format!("{name} {addr}: {error}"))
            .next(format!("stop what listens there, or choose another address with --{name}"))
    })
}

fn start_failure(error: &StartError) -> Failure {
    Failure::unavailable(error.to_string()).next("choose other addresses with --mqtt-listen and --ws-listen, or stop what listens there")
}

impl Started {
    /// Addresses and files, for programs.
    pub(crate) fn ready(&self) -> Ready {
        Ready {
            http: self.running.http_url(),
            mqtt: mqtt_url(&self.running),
            ws: self.running.ws_addr().map_or_else(String::new, |addr| format!("ws://{addr}/mqtt")),
            database: self.data.database_path(),
            admin_token_file: self.data.admin_token_path(),
        }
    }

    /// The same for people, with the next command to try.
    fn welcome(&self) -> String {
        let ready = self.ready();
        let first = if self.data.created() { "made now" } else { "kept" };
        let token = shown(&ready.admin_token_file);
        format!(
            "MStore Sync {version}\n\
             \n  HTTP API     {http}        (OpenAPI at {http}/openapi.json, health at /healthz and /readyz, metrics at /metrics)\
             \n  MQTT         {mqtt}{tls}\
             \n  WebSocket    {ws}\
             \n  data         {dir}   ({first})\
             \n  admin token  {token}\
             \n\nnext: mstore-sync trigger shop m1/b1 --server {http} --admin-token-file {token}\
             \n      mstore-sync device add m1/b1 --server {http} --admin-token-file {token}",
            version = env!("CARGO_PKG_VERSION"),
            http = ready.http,
            mqtt = ready.mqtt,
            ws = ready.ws,
            tls = if self.tls { "   (TLS)" } else { "" },
            dir = shown(self.data.path()),
        )
    }
}

fn mqtt_url(running: &Running) -> String {
    let addrs = running.broker_addrs();
    let tls = addrs.tls.map(|addr| format!("mqtts://{addr}"));
    tls.or_else(|| addrs.tcp.map(|addr| format!("mqtt://{addr}"))).unwrap_or_default()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Ctrl-C, or SIGTERM from a service manager.
async fn stop_signal() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
