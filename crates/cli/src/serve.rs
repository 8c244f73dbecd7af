//! `serve`: the server with its configuration, its data directory and its listeners; prints every URL and what to try next.

use std::{net::SocketAddr, path::Path, sync::Arc};

use mstore_broker::{Certificate, EmbeddedConfig, TlsListen};
use mstore_server::{BrokerAccounts, BrokerConfig, DataDir, DataDirError, Running, Server, ServerConfig, StartError};
use tokio::net::TcpListener;

use crate::{
    args::ServeArgs,
    config::Config,
    database::{self, Opened},
    descriptors,
    failure::Failure,
    logging,
    server_process::Ready,
    settings::RawConfig,
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
    stop_signal(&started.running).await;
    tracing::info!("shutting down");
    started.running.shutdown().await;
    tracing::info!("stopped; everything accepted is on disk");
    Ok(())
}

/// A server of this process, and its data directory, which it keeps locked.
pub(crate) struct Started {
    pub(crate) running: Running,
    data: DataDir,
    database: String,
    /// What to say behind the MQTT address.
    note: &'static str,
}

/// Opens the data directory and the store, binds every port, starts.
pub(crate) async fn start(config: &Config) -> Result<Started, Failure> {
    descriptors::raise();
    let data = DataDir::open(&config.data_dir).map_err(|error| {
        let next = match &error {
            DataDirError::NotWritable { .. } => "choose another --data-dir, or let this user write there",
            DataDirError::InUse { .. } | DataDirError::Damaged { .. } | DataDirError::SecretMissing { .. } => error.code().next_step(),
        };
        Failure::unavailable(error.to_string()).next(next)
    })?;
    let http = bind("listen", config.listen).await?;
    let certificate = match &config.tls.files {
        Some((cert, key)) => {
            let loaded = Certificate::load(cert, key).map_err(|error| Failure::usage(error.to_string()));
            Some(loaded.map_err(|failure| failure.next("mstore-sync tls dev makes certificates for trying things out"))?)
        }
        None => None,
    };
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let server_url =
        config.public.http.clone().or_else(|| http.local_addr().ok().map(|addr| format!("{scheme}://{addr}"))).unwrap_or_default();
    let Opened { store, name: database } = database::open(config, &data, server_url).await?;
    let (broker, accounts) = broker(config, certificate.as_ref())?;
    let mut server = ServerConfig::new(config.env.clone(), data.secrets().clone(), broker);
    server.accounts = accounts;
    server.device_token_max_age = config.device_token_max_age;
    if config.database.is_some() {
        let name = data.server_name().map_err(|error| Failure::unavailable(error.to_string()))?;
        server.file_token_name = format!("bootstrap-{name}");
    }
    server.public = config.public.clone();
    server.profile = config.profile;
    server.certificate = certificate;
    server.proxies.clone_from(&config.tls.proxies);
    server.limits = config.limits.http.clone();
    server.webhook = config.backend.load().map_err(|(key, why)| Failure::usage(format!("{key}: {why}")))?;
    if let Some(is_on) = config.backend.inbox {
        store.set_inbox(is_on).await.map_err(|error| Failure::unavailable(error.to_string()))?;
    }
    let running = Server::start(server, store, http).await.map_err(|error| start_failure(&error))?;
    let note = match (&config.broker, &config.tls.files) {
        (Some(_), _) => "   (external broker)",
        (None, Some(_)) => "   (TLS)",
        (None, None) => "",
    };
    Ok(Started { running, data, database, note })
}

fn broker(config: &Config, certificate: Option<&Arc<Certificate>>) -> Result<(BrokerConfig, BrokerAccounts), Failure> {
    if let Some(external) = &config.broker {
        let loaded = external.load(&config.env, config.database.is_some());
        let (way, accounts) = loaded.map_err(|(key, why)| Failure::usage(format!("{key}: {why}")))?;
        return Ok((way.into(), accounts));
    }
    let (mqtt, ws) = (Some(config.mqtt_listen), Some(config.ws_listen));
    let tls = certificate.map(|certificate| TlsListen { mqtt, ws, certificate: certificate.clone() });
    let plain = |addr| if tls.is_none() { addr } else { None };
    let (tcp, ws) = (plain(mqtt), plain(ws));
    let embedded = EmbeddedConfig { tcp, ws, tls, proxies: config.tls.proxies.clone(), limits: config.limits.mqtt.clone() };
    Ok((embedded.into(), BrokerAccounts::default()))
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
            mqtt: self.running.mqtt_url(),
            ws: self.running.ws_url(),
            database: self.database.clone(),
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
             \n  MQTT         {mqtt}{note}\
             \n  WebSocket    {ws}\
             \n  data         {dir}   ({first})\
             \n  database     {database}\
             \n  admin token  {token}\
             \n\nnext: mstore-sync trigger --server {http} --admin-token-file {token} shop m1/b1\
             \n      mstore-sync device add m1/b1 --server {http} --admin-token-file {token}",
            version = env!("CARGO_PKG_VERSION"),
            http = ready.http,
            mqtt = ready.mqtt,
            ws = if ready.ws.is_empty() { "-" } else { &ready.ws },
            note = self.note,
            dir = shown(self.data.path()),
            database = self.database,
        )
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Ctrl-C, or SIGTERM from a service manager. Until then SIGHUP has the certificate's files read again.
async fn stop_signal(running: &Running) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut reload)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = tokio::signal::ctrl_c() => return,
            _ = reload.recv() => running.reload_certificate(),
        }
    }
}
