//! A part of a fleet in a process of its own, because one process may not open files for all of it: told over a pipe what to do, it tells what became of it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use mstore_client::{Client, Options, Stats, Status};
use mstore_protocol::{DeviceState, Enrolment};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

use crate::{failure::Failure, shop::now};

/// Tills of one process. Each has its database and the log of it open twice, the log's index, and up to three connections.
pub(super) const TILLS_PER_PROCESS: usize = 1_250;
/// Files that one till may have open at a time.
pub(super) const FILES_PER_TILL: usize = 8;
/// Tills that make their first copy at one time.
const OPENED_AT_ONCE: usize = 16;
/// A fleet that is slower than this is broken.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// The tills of one process.
#[derive(Serialize, Deserialize)]
struct Orders {
    server: String,
    dir: PathBuf,
    tills: Vec<Enrolment>,
}

/// What became of them after the server had been away.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Returned {
    /// When each was live again and showed a commit of after the return; milliseconds since 1970.
    pub(super) at_ms: Vec<i64>,
    pub(super) snapshots: u64,
    pub(super) catch_ups: u64,
    pub(super) changes_http: u64,
    pub(super) changes_mqtt: u64,
}

/// A process with tills, seen from the one that measures.
pub(super) struct Fleet {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Fleet {
    /// Starts a process whose tills make their first copies.
    pub(super) async fn start(server: &str, dir: &Path, tills: Vec<Enrolment>) -> Result<Self, Failure> {
        let exe = std::env::current_exe().map_err(|error| Failure::unavailable(format!("this program's own path: {error}")))?;
        let spawned = Command::new(exe).args(["bench", "fleet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child = spawned.map_err(|error| Failure::unavailable(format!("a process with tills did not start: {error}")))?;
        let orders = child.stdin.take().expect("piped above");
        let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let mut fleet = Self { child, orders, lines };
        fleet.tell(&Orders { server: server.to_owned(), dir: dir.to_owned(), tills }).await?;
        Ok(fleet)
    }

    /// Waits until all are live.
    pub(super) async fn live(&mut self) -> Result<(), Failure> {
        self.hear().await
    }

    /// From now on it is noted when they come back; the server may go.
    pub(super) async fn watch(&mut self) -> Result<(), Failure> {
        self.tell(&()).await?;
        self.hear().await
    }

    /// Waits until all are back.
    pub(super) async fn returned(mut self) -> Result<Returned, Failure> {
        let returned = self.hear().await?;
        // It ends by itself once nobody has orders for it.
        drop(self.orders);
        let _ended = self.child.wait().await;
        Ok(returned)
    }

    async fn tell(&mut self, what: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(what).map_err(|error| Failure::check(error.to_string()))? + "\n";
        self.orders.write_all(line.as_bytes()).await.map_err(|error| Failure::unavailable(format!("a process with tills: {error}")))
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match timeout(GIVE_UP_AFTER, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => {
                serde_json::from_str(&line).map_err(|error| Failure::check(format!("a process with tills said {line:?}: {error}")))
            }
            Ok(_ended) => Err(Failure::check("a process with tills ended early")),
            Err(_late) => Err(Failure::check(format!("tills were not ready within {GIVE_UP_AFTER:?}"))),
        }
    }
}

/// The process with the tills.
pub(super) async fn run() -> Result<(), Failure> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let Orders { server, dir, tills } = order(&mut orders).await?;
    let opening = stream::iter(tills).map(async |enrolment| {
        let path = dir.join(format!("{}.db", enrolment.device_id));
        let till = Client::open_with(path, &server, enrolment, Options::default()).await;
        let till = till.map_err(|error| Failure::unavailable(format!("a till: {error}")))?;
        wait(&mut till.watch_status(), |status| status.state == DeviceState::Live).await?;
        Ok::<_, Failure>(till)
    });
    let tills: Vec<Client> = opening.buffer_unordered(OPENED_AT_ONCE).try_collect().await?;
    say(&());
    order::<()>(&mut orders).await?;
    for till in &tills {
        wait(&mut till.watch_status(), |status| status.state == DeviceState::Live).await?;
    }
    let before = Returned::of(&tills);
    let watched: Vec<_> = tills.iter().map(|till| (till.watch_status(), till.status().cursor.map_or(0, |cursor| cursor.seq))).collect();
    say(&());
    let at_ms = try_join_all(watched.into_iter().map(|(status, seq)| back(status, seq))).await?;
    let after = Returned::of(&tills);
    say(&Returned {
        at_ms,
        snapshots: after.snapshots - before.snapshots,
        catch_ups: after.catch_ups - before.catch_ups,
        changes_http: after.changes_http - before.changes_http,
        changes_mqtt: after.changes_mqtt - before.changes_mqtt,
    });
    // Until the pipe is closed: nobody is cut off while others are counted.
    let _closed = orders.next_line().await;
    Ok(())
}

impl Returned {
    fn of(tills: &[Client]) -> Self {
        let stats: Vec<Stats> = tills.iter().map(Client::stats).collect();
        let sum = |count: fn(&Stats) -> u64| stats.iter().map(count).sum();
        Self {
            at_ms: Vec::new(),
            snapshots: sum(|stats| stats.engine.snapshots),
            catch_ups: sum(|stats| stats.engine.catch_ups),
            changes_http: sum(|stats| stats.changes_http),
            changes_mqtt: sum(|stats| stats.changes_mqtt),
        }
    }
}

/// A till that is cut off, and comes back with a commit of after `seq`; when that was.
async fn back(mut status: watch::Receiver<Status>, seq: u64) -> Result<i64, Failure> {
    wait(&mut status, |status| status.state != DeviceState::Live).await?;
    wait(&mut status, |status| status.state == DeviceState::Live && status.cursor.is_some_and(|cursor| cursor.seq > seq)).await?;
    Ok(now().as_ms())
}

async fn wait(status: &mut watch::Receiver<Status>, until: impl FnMut(&Status) -> bool) -> Result<(), Failure> {
    let came_so_far = matches!(timeout(GIVE_UP_AFTER, status.wait_for(until)).await, Ok(Ok(_)));
    if came_so_far { Ok(()) } else { Err(Failure::check(format!("a till did not come so far: {:?}", *status.borrow()))) }
}

async fn order<T: DeserializeOwned>(orders: &mut Lines<BufReader<tokio::io::Stdin>>) -> Result<T, Failure> {
    let line = orders.next_line().await.ok().flatten().ok_or_else(|| Failure::usage("this is started by bench reconnect"))?;
    serde_json::from_str(&line).map_err(|error| Failure::usage(format!("no orders of bench reconnect: {error}")))
}

#[allow(clippy::print_stdout)]
fn say(what: &impl Serialize) {
    println!("{}", serde_json::to_string(what).expect("numbers are always JSON"));
}
