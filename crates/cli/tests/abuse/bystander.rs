//! An honest till beside the attack: how long a change of stock takes to reach it, and what the server's process weighs.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::{
    support::Server,
    wire::{DEADLINE, HONEST, connect, http, login, next, subscribe},
};

/// Attacks take turns: the latency of one test is not the noise of another.
static ALONE: Mutex<()> = Mutex::const_new(());
/// Changes whose way to the till is timed.
const CHANGES: u64 = 20;
/// A server that is attacked may answer slower, but not by more than this. It tells a queue from none, on a machine that does other things.
const SLOWER_BY: Duration = Duration::from_secs(2);
/// What an attack may leave in memory, kilobytes.
const MEMORY_GROWTH_KB_MAX: u64 = 96 * 1024;

/// A server with a shop, and a till that is connected to it.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) token: String,
    admin: String,
    till: TcpStream,
    before: (Duration, u64),
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// Starts both, and measures them in peace.
    pub(crate) async fn open(args: &[&str]) -> Self {
        let alone = ALONE.lock().await;
        let server = Server::start_with(&[&["--tls-proxy", "127.0.0.9"], args].concat());
        server.admin(&["trigger", "shop", "m1/b1"]);
        let token = server.token("m1/b1", "honest");
        let address = |url: &str| url.split("://").nth(1).unwrap().parse().unwrap();
        let (web, mqtt) = (address(server.url("http")), address(server.url("mqtt")));
        let till = log_in(HONEST, mqtt, "honest", &token, "dev/m1/b1/product/updates").await;
        let admin = std::fs::read_to_string(server.url("admin_token_file")).unwrap().trim().to_owned();
        let mut scene = Self { server, http: web, mqtt, token, admin, till, before: (Duration::ZERO, 0), _alone: alone };
        scene.before = (scene.slowest().await, scene.memory_kb());
        scene
    }

    /// Runs the attack with the till beside it; what the attack brought.
    pub(crate) async fn beside<T>(&mut self, attack: impl Future<Output = T>) -> T {
        let (slowest_before, memory_before) = self.before;
        let (result, slowest) = tokio::join!(attack, self.slowest());
        let after = self.slowest().await;
        assert!(slowest.max(after) < 10 * slowest_before + SLOWER_BY, "{slowest:?} beside the attack, {slowest_before:?} before");
        let memory = self.memory_kb();
        assert!(memory < memory_before + MEMORY_GROWTH_KB_MAX, "{memory} kB after the attack, {memory_before} kB before");
        result
    }

    /// The longest way of some changes from the request to the till.
    async fn slowest(&mut self) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..CHANGES {
            let begun = Instant::now();
            self.change_stock().await;
            let (kind, _) = timeout(DEADLINE, next(&mut self.till)).await.expect("the change reaches the till").unwrap();
            assert_eq!(kind >> 4, 3, "a publish");
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    }

    async fn change_stock(&self) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{:04x}-7000-8000-{number:012x}", ms >> 16, ms & 0xffff);
        let body = format!(r#"{{"moves":[{{"id":"{id}","collection":"product","item_id":"SKU-00001","quantity":"-1"}}]}}"#);
        let head = format!(
            "POST /v1/admin/merchants/m1/branches/b1/stock-moves HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
            self.admin
        );
        let (status, said) = http(HONEST, self.http, &head, body.as_bytes()).await.expect("the server answers an honest call");
        assert_eq!(status, 200, "{said}");
    }

    fn memory_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).expect("the server is alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// An MQTT connection that has logged in and subscribed.
pub(crate) async fn log_in(from: [u8; 4], mqtt: SocketAddr, device: &str, token: &str, topic: &str) -> TcpStream {
    let mut till = connect(from, mqtt).await.unwrap();
    till.write_all(&login(device.as_bytes(), device.as_bytes(), token.as_bytes())).await.unwrap();
    let mut answer = [0; 4];
    timeout(DEADLINE, till.read_exact(&mut answer)).await.expect("a login is answered").unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "the login is right");
    till.write_all(&subscribe(topic.as_bytes())).await.unwrap();
    let mut answer = [0; 5];
    timeout(DEADLINE, till.read_exact(&mut answer)).await.expect("a subscription is answered").unwrap();
    assert_eq!(answer[4], 0, "the subscription is granted");
    till
}
