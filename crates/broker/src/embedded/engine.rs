//! The broker's own runtime and thread. Everything the library spawns lives there and dies with it: a shutdown leaves no connection, no
//! listener and no port behind, which the library itself has no call for.

use std::{
    net::{Ipv4Addr, SocketAddr},
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
    types::ListenerId,
};
use tokio::{
    runtime::{self, Runtime},
    sync::{oneshot, watch},
};

use super::{
    config::{EmbeddedConfig, ListenAddrs, PACKET_BYTES_MAX, StartError},
    door::{self, Door, Rules},
    fitter::Grants,
    gate::Gate,
    lobby::INNER_LISTENERS,
    retain::Heads,
};
use crate::visitors::Visitors;

/// More workers than this gain nothing: routing is done by the publisher's thread. Half the cores, because a broker that takes them all
/// delays the threads it serves: on two cores a second worker brought no throughput and a five times longer tail.
const WORKERS_MAX: usize = 4;
/// How long a shutdown waits for the workers; they only run short steps.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections the system may hold while they wait to be accepted: a whole fleet comes back at once.
pub(super) const BACKLOG: u32 = 4096;
/// Longest client id: device ids are segments, and MQTT clients of the backend get some room.
const CLIENT_ID_BYTES_MAX: usize = 128;
/// More subscriptions than a device has topics.
const SUBSCRIPTIONS_PER_CLIENT_MAX: usize = 256;

/// A started broker, seen from outside its thread.
pub(super) struct Engine {
    pub(super) context: ServerContext,
    pub(super) addrs: ListenAddrs,
    pub(super) visitors: Arc<Visitors>,
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
    let visitors =
        Visitors::new(usize::try_from(config.limits.sessions_max).unwrap_or(usize::MAX), config.limits.connections_per_address_max);
    let rules = Arc::new(Rules {
        visitors: visitors.clone(),
        lobby: gate.lobby.clone(),
        proxies: config.proxies.clone(),
        login_timeout: config.limits.handshake_timeout,
        send_timeout: config.limits.send_timeout,
    });
    runtime.spawn(serve(context.clone(), listeners, rules));
    if started.send(Ok(Engine { context: context.clone(), addrs, visitors, retained, stop, stopped })).is_ok() {
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

/// The library's listeners with their ids, and our own in front of some of them.
struct Listeners {
    addrs: ListenAddrs,
    all: Vec<(Listener, ListenerId)>,
    doors: Vec<Door>,
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

async fn serve(context: ServerContext, listeners: Listeners, rules: Arc<Rules>) {
    for door in listeners.doors {
        tokio::spawn(door.serve(rules.clone()));
    }
    let mut server = MqttServer::new(context);
    for (listener, id) in listeners.all {
        server = server.listener_by_id(listener, id);
    }
    if let Err(error) = server.build().run().await {
        tracing::error!(error = format!("{error:#}"), "mqtt listeners ended");
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Mqtt,
    WebSocket,
}

fn listen(config: &EmbeddedConfig) -> Result<Listeners, StartError> {
    let mut listeners = Listeners { addrs: ListenAddrs::default(), all: Vec::new(), doors: Vec::new() };
    // Only programs of this machine reach these, and the detour through a door costs time.
    let is_direct = |addr: &SocketAddr| addr.ip().is_loopback() && config.proxies.is_empty();
    for (spoken, plain, secure) in [
        (Spoken::Mqtt, config.tcp, config.tls.as_ref().and_then(|tls| tls.mqtt)),
        (Spoken::WebSocket, config.ws, config.tls.as_ref().and_then(|tls| tls.ws)),
    ] {
        let mut bound = (None, None);
        if let Some(addr) = plain.filter(is_direct) {
            bound.0 = Some(listeners.add(config, spoken, addr, 1)?);
        }
        let behind = [(plain.filter(|addr| !is_direct(addr)), None), (secure, config.tls.as_ref())];
        for (addr, tls) in behind {
            let Some(addr) = addr else { continue };
            // First the one that others know: it is the one that may be in use.
            let (listener, outer) = door::listen(addr)?;
            let inner = listeners.add(config, spoken, (Ipv4Addr::LOCALHOST, 0).into(), INNER_LISTENERS)?;
            let side = if tls.is_some() { &mut bound.1 } else { &mut bound.0 };
            *side = Some(outer);
            listeners.doors.push(Door { listener, inner, tls: tls.map(|tls| tls.certificate.server_config(&[])) });
        }
        match spoken {
            Spoken::Mqtt => (listeners.addrs.tcp, listeners.addrs.tls) = bound,
            Spoken::WebSocket => (listeners.addrs.ws, listeners.addrs.wss) = bound,
        }
    }
    Ok(listeners)
}

impl Listeners {
    /// A listener of the library, with an id of its own from `first_id` on.
    fn add(&mut self, config: &EmbeddedConfig, spoken: Spoken, addr: SocketAddr, first_id: ListenerId) -> Result<SocketAddr, StartError> {
        let (listener, bound) = bind(config, if spoken == Spoken::Mqtt { "mqtt" } else { "ws" }, addr)?;
        let listener = match spoken {
            Spoken::Mqtt => listener.tcp(),
            Spoken::WebSocket => listener.ws(),
        };
        let id = first_id + ListenerId::try_from(self.all.len()).unwrap_or_default();
        self.all.push((listener.map_err(|error| StartError::listen(addr, &error))?, id));
        Ok(bound)
    }
}

/// Listens on `addr`, and tells the address that port 0 became.
fn bind(config: &EmbeddedConfig, name: &str, addr: SocketAddr) -> Result<(Listener, SocketAddr), StartError> {
    let limits = &config.limits;
    let listener = Builder::new()
        .name(name)
        .laddr(addr)
        .backlog(i32::try_from(BACKLOG).unwrap_or(i32::MAX))
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
        .bind()
        .map_err(|error| StartError::listen(addr, &error))?;
    let bound = listener.local_addr().map_err(|error| StartError::listen(addr, &error))?;
    Ok((listener, bound))
}
