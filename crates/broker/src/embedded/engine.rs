//! The broker's own runtime and thread. Everything the library spawns lives there and dies with it: a shutdown leaves no connection, no
//! listener and no port behind, which the library itself has no call for.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::Duration,
};

use rmqtt::{
    codec::types::QoS,
    context::ServerContext,
    net::{Builder, Listener},
    server::MqttServer,
    shared::DefaultShared,
};
use tokio::{
    runtime::{self, Runtime},
    sync::{oneshot, watch},
};

use super::{
    config::{EmbeddedConfig, ListenAddrs, PACKET_BYTES_MAX, StartError},
    fitter::Grants,
    gate::Gate,
    retain::Heads,
};

/// More workers than this gain nothing: routing is done by the publisher's thread. Half the cores, because a broker that takes them all
/// delays the threads it serves: on two cores a second worker brought no throughput and a five times longer tail.
const WORKERS_MAX: usize = 4;
/// How long a shutdown waits for the workers; they only run short steps.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections the system may hold while they wait to be accepted: a whole fleet comes back at once.
const BACKLOG: i32 = 4096;
/// Longest client id: device ids are segments, and MQTT clients of the backend get some room.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// More subscriptions than a device has topics.
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 256;

/// A started broker, seen from outside its thread.
pub(super) struct Engine {
    pub(super) context: ServerContext,
    pub(super) addrs: ListenAddrs,
    pub(super) retained: Arc<AtomicUsize>,
    /// Dropped to stop the thread.
    pub(super) stop: oneshot::Sender<()>,
    /// True once everything is gone.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Starts the thread and waits until the broker listens.
pub(super) async fn start(config: EmbeddedConfig, gate: Arc<Gate>) -> Result<Engine, StartError> {
    let (started, ready) = oneshot::channel();
    thread::Builder::new().name("mqtt-broker".to_owned()).spawn(move || run(&config, &gate, started)).map_err(StartError::Threads)?;
    ready.await.expect("the thread answers before it ends")
}

fn run(config: &EmbeddedConfig, gate: &Arc<Gate>, started: oneshot::Sender<Result<Engine, StartError>>) {
    let workers = thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, WORKERS_MAX));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(workers).thread_name("mqtt-worker").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(StartError::Threads(error)))),
    };
    let (stop, stopping) = oneshot::channel();
    let (finished, stopped) = watch::channel(false);
    let retained = Arc::new(AtomicUsize::new(0));
    let (context, listeners) = match runtime.block_on(build(config, gate, &retained)) {
        Ok(built) => built,
        Err(error) => return drop(started.send(Err(error))),
    };
    let addrs = listeners.addrs;
    runtime.spawn(serve(context.clone(), listeners));
    if started.send(Ok(Engine { context: context.clone(), addrs, retained, stop, stopped })).is_ok() {
        // Either word means the same: told to stop, or nobody is left to tell.
        let _ = runtime.block_on(stopping);
    }
    end(runtime, &context, gate);
    finished.send_replace(true);
}

/// Ends everything the library started, then unties the knot it makes: its context owns parts that own the context.
fn end(runtime: Runtime, context: &ServerContext, gate: &Gate) {
    gate.close();
    let handle = runtime.handle().clone();
    {
        // Sessions spawn their last words when they are dropped, which needs a runtime to refuse them.
        let _inside = handle.enter();
        runtime.shutdown_timeout(STOP_TIMEOUT);
    }
    let Ok(last) = runtime::Builder::new_current_thread().build() else { return };
    last.block_on(async {
        *context.extends.shared_mut().await = Box::new(DefaultShared::new(None));
        *context.extends.router_mut().await = Box::new(rmqtt::router::DefaultRouter::new(None));
    });
}

struct Listeners {
    addrs: ListenAddrs,
    all: Vec<Listener>,
}

async fn build(config: &EmbeddedConfig, gate: &Arc<Gate>, retained: &Arc<AtomicUsize>) -> Result<(ServerContext, Listeners), StartError> {
    let listeners = listen(config)?;
    let sessions_max = isize::try_from(config.limits.sessions_max).unwrap_or(isize::MAX);
    let context = ServerContext::new().busy_check_enable(false).mqtt_max_sessions(sessions_max).build().await;
    *context.extends.retain_mut().await = Box::new(Heads::new(retained.clone()));
    *context.extends.fitter_mgr_mut().await = Box::new(Grants(Arc::new(config.limits.clone())));
    gate.install(&context).await;
    Ok((context, listeners))
}

async fn serve(context: ServerContext, listeners: Listeners) {
    let mut server = MqttServer::new(context);
    for (listener, number) in listeners.all.into_iter().zip(1..) {
        server = server.listener_by_id(listener, number);
    }
    if let Err(error) = server.build().run().await {
        tracing::error!(error = format!("{error:#}"), "mqtt listeners ended");
    }
}

fn listen(config: &EmbeddedConfig) -> Result<Listeners, StartError> {
    let mut all = Vec::with_capacity(3);
    let tcp = config.tcp.map(|addr| bind(config, "tcp", addr)).transpose()?;
    let tcp_addr = tcp.as_ref().map(|(_, addr)| *addr);
    all.extend(tcp.map(|(listener, _)| listener));
    let ws = config.ws.map(|addr| bind(config, "ws", addr)).transpose()?;
    let ws_addr = ws.as_ref().map(|(_, addr)| *addr);
    if let Some((listener, addr)) = ws {
        all.push(listener.ws().map_err(|error| StartError::listen(addr, &error))?);
    }
    let mut tls_addr = None;
    if let Some(tls) = &config.tls {
        let (listener, addr) = bind(config, "tls", tls.addr)?;
        all.push(listener.tls().map_err(|error| StartError::certificate(&tls.cert, &tls.key, &error))?);
        tls_addr = Some(addr);
    }
    Ok(Listeners { addrs: ListenAddrs { tcp: tcp_addr, ws: ws_addr, tls: tls_addr }, all })
}

/// Listens on `addr`, and tells the address that port 0 became.
fn bind(config: &EmbeddedConfig, name: &str, addr: SocketAddr) -> Result<(Listener, SocketAddr), StartError> {
    let limits = &config.limits;
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let listener = Builder::new()
        .name(name)
        .laddr(addr)
        .backlog(BACKLOG)
        // On Unix this takes over ports that closed connections of an earlier broker still hold; it never shares one with a live listener.
        .reuseaddr(cfg!(unix).then_some(true))
        .nodelay(true)
        .tcp_keepalive(true)
        .allow_anonymous(false)
        .max_connections(usize::try_from(limits.sessions_max).unwrap_or(usize::MAX))
        .max_packet_size(PACKET_BYTES_MAX)
        .max_clientid_len(CLIENT_ID_BYTES_MAX)
        .max_subscriptions(SUBSCRIPTIONS_PER_CLIENT_MAX)
        .max_qos_allowed(QoS::AtLeastOnce)
        .max_inflight(NonZeroU16::new(limits.inflight_max).unwrap_or(NonZeroU16::MIN))
        .handshake_timeout(limits.handshake_timeout)
        .send_timeout(limits.send_timeout)
        // Zero: nothing is sent twice on one connection, and nothing in a queue grows too old.
        .message_retry_interval(Duration::ZERO)
        .message_expiry_interval(Duration::ZERO)
        .tls_cert(config.tls.as_ref().map(|tls| path(&tls.cert)))
        .tls_key(config.tls.as_ref().map(|tls| path(&tls.key)))
        .bind()
        .map_err(|error| StartError::listen(addr, &error))?;
    let bound = listener.local_addr().map_err(|error| StartError::listen(addr, &error))?;
    Ok((listener, bound))
}
