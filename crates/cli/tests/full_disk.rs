//! The server's disk is full, to the last byte, while it runs and when it starts: tills go on reading, nothing is accepted and lost, and as soon as
//! there is room it goes on by itself.
#![allow(clippy::unwrap_used)]

mod outage;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use mstore_client::{Client, DeviceState, NewReceipt, Options, Quantity};
use outage::{Process, Shop, until_true};
use reqwest::Method;
use serde_json::{Value, json};

/// A small disk in a mount namespace of its own; it is gone when this is dropped.
struct SmallDisk {
    keeper: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// None where no such thing may be made.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let script = "mount -t tmpfs -o size=12m tmpfs \"$1\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(&path);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let disk = Self { keeper, path };
        (line == "mounted\n").then_some(disk)
    }

    /// Its root as this process sees it.
    fn seen(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.keeper.id(), self.path.display()))
    }

    /// A program that has it.
    fn program(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &self.keeper.id().to_string()]);
        command.arg(env!("CARGO_BIN_EXE_mstore-sync"));
        command
    }

    /// Not a byte more.
    fn fill(&self) {
        let mut filler = File::create(self.seen().join("filler")).unwrap();
        while filler.write_all(&[0; 64 * 1024]).is_ok() {}
        while filler.write_all(&[0]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.seen().join("filler")).unwrap();
    }

    /// What the server says goes to a file on the same disk.
    fn start(&self, shop: &mut Shop) -> Process {
        let log = File::options().create(true).append(true).open(self.seen().join("server.log")).unwrap();
        let mut command = Process::command(shop, self.program());
        command.stderr(log);
        Process::ready(shop, command)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = self.keeper.kill();
        let _gone = self.keeper.wait();
    }
}

/// Products enough that the pages written do not fit into what a log has left.
fn many(name: &str) -> Value {
    let product = |n: usize| json!({"id": format!("N{n:04}"), "sku": n.to_string(), "name": format!("{name} {n}"), "price": {"amount": 1, "currency": "IDR"}});
    json!({"products": (0..500).map(product).collect::<Vec<_>>()})
}

async fn import(shop: &Shop, name: &str) -> (u16, Value) {
    shop.admin(Method::POST, "/merchants/m1/products", many(name)).await.unwrap()
}

async fn is_ready(shop: &Shop) -> (u16, Value) {
    shop.call(Method::GET, "/readyz", None, Value::Null).await.unwrap()
}

/// Writes until no byte fits: what a log has left over takes some.
async fn until_refused(shop: &Shop) {
    until_true("refused for want of room", async || {
        let (status, answer) = import(shop, &outage::new_id()).await;
        if status == 200 {
            return false;
        }
        assert_eq!((status, &answer["code"], &answer["retryable"]), (503, &json!("disk_full"), &json!(true)), "{answer}");
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_only_and_only_as_long_as_it_is_full() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut shop = Shop::new();
    let Some(disk) = SmallDisk::mount(shop.path("shop")) else {
        eprintln!("skipped: this machine lets nobody mount a disk in a namespace of its own");
        return;
    };
    let mut server = disk.start(&mut shop);
    shop.fill().await;
    let claim = shop.claim("till").await;
    let till = Client::enrol(shop.path("till.db"), &shop.http(), &claim, Options::default()).await.unwrap();
    until_true("live", async || till.status().state == DeviceState::Live).await;

    // While it runs.
    disk.fill();
    until_refused(&shop).await;
    let (status, answer) = is_ready(&shop).await;
    assert_eq!((status, &answer["code"]), (503, &json!("disk_full")), "{answer}");
    let head = shop.admin_head().await;
    till.commit_sale(NewReceipt::of([("P", Quantity::from_units(1))])).await.unwrap();
    till.sync_now().await;
    until_refused(&shop).await;
    assert_eq!((till.status().queue_depth, shop.admin_head().await), (1, head.clone()), "the sale stays on the till");
    disk.free();
    until_true("ready again", async || is_ready(&shop).await.0 == 200).await;
    till.drain(outage::DEADLINE).await.unwrap();

    // When it starts.
    disk.fill();
    until_refused(&shop).await;
    let head = shop.admin_head().await;
    let pid = server.pid();
    server.stop();
    drop(server);
    let server = disk.start(&mut shop);
    assert_ne!(server.pid(), pid);
    assert_eq!(shop.admin_head().await, head, "what is there is read");
    until_refused(&shop).await;
    till.commit_sale(NewReceipt::of([("P", Quantity::from_units(1))])).await.unwrap();
    disk.free();
    until_true("ready without another start", async || is_ready(&shop).await.0 == 200).await;
    till.drain(outage::DEADLINE).await.unwrap();
    let (status, answer) = import(&shop, "after").await;
    assert_eq!(status, 200, "{answer}");
    let operations = shop.all("/merchants/m1/branches/b1/operations").await;
    assert_eq!(operations.len(), 2, "each sale once: {operations:?}");
    till.close().await;
}

/// SQLite keeps an index of its log in a file beside the database; another program that closed the database last has removed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_a_file_beside_the_database_it_waits_for_some() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut shop = Shop::new();
    let Some(disk) = SmallDisk::mount(shop.path("shop")) else {
        eprintln!("skipped: this machine lets nobody mount a disk in a namespace of its own");
        return;
    };
    let mut server = disk.start(&mut shop);
    shop.fill().await;
    let head = shop.admin_head().await;
    server.stop();
    drop(server);
    std::fs::remove_file(disk.seen().join("mstore.db-shm")).unwrap();
    disk.fill();

    let said = shop.path("said");
    let mut command = Process::command(&shop, disk.program());
    command.stderr(File::create(&said).unwrap());
    let starting = tokio::task::spawn_blocking(move || (Process::ready(&mut shop, command), shop));
    until_true("waiting for room", async || std::fs::read_to_string(&said).unwrap().contains("waiting for some")).await;
    assert!(!starting.is_finished());
    disk.free();
    let (_server, shop) = starting.await.unwrap();
    until_true("ready", async || is_ready(&shop).await.0 == 200).await;
    assert_eq!(shop.admin_head().await, head, "nothing is lost");
    let (status, answer) = import(&shop, "after").await;
    assert_eq!(status, 200, "{answer}");
}
