//! `cargo xtask torture`: real processes under real faults. A server, a Mosquitto and a dozen tills are killed, stopped, cut off and starved of
//! disk, while sales and foreign writes go on; then everything that a till ever confirmed is looked for on the server.
//!
//! It knows the programs from outside only: their command lines, what they print, and their databases through the `sqlite3` shell.

mod broker;
mod chance;
mod disk;
mod foreign;
mod gate;
mod letters;
mod network;
mod process;
mod sandbox;
mod server;
mod storm;
mod till;
mod verdict;
mod wait;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};

use self::{
    broker::Mosquitto,
    foreign::Foreign,
    gate::Gate,
    network::Network,
    sandbox::{Inside, Walls},
    server::Server,
    storm::Storm,
    till::{Heard, Till},
    wait::until,
};
use crate::{cargo, setup};

const BRANCHES: usize = 3;
const TILLS: usize = 12;
const PRODUCTS: usize = 24;
/// A test target of the program's crate, as small as any.
const TEST: &str = "full_disk";

/// How long and how hard.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TortureArgs {
    /// How long faults are made; more if the kills take longer
    #[arg(long, default_value_t = 150)]
    seconds: u64,
    /// Processes to kill with -9
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// What the faults are drawn from; the clock if left out. The same seed makes the same choices, not the same run: processes have their own time
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    inside: Option<Inside>,
}

impl TortureArgs {
    /// The run of every CI: at least 200 kills within five minutes.
    pub(crate) fn in_ci() -> Self {
        Self { seconds: 150, kills: 200, seed: None, inside: None }
    }
}

/// Whether the foreign programs that it uses are here.
pub(crate) fn can_run() -> bool {
    setup::have(&["mosquitto", "sqlite3"])
}

/// Everything that runs.
struct Shop {
    server: Server,
    broker: Mosquitto,
    tills: Vec<Till>,
}

/// What a run stands on.
struct Ground {
    program: PathBuf,
    directory: PathBuf,
    /// Whether its mounts are its own.
    has_walls: bool,
    network: Option<Network>,
}

impl Ground {
    fn within(inside: &Inside) -> Result<Self> {
        sandbox::ensure_inside()?;
        let (program, directory) = (inside.program.clone(), inside.directory.clone());
        let network = (inside.walls == Walls::Network).then(|| Network::lay(&directory)).transpose()?;
        Ok(Self { program, directory, has_walls: true, network })
    }

    /// Where tills reach the shop.
    fn address(&self) -> Ipv4Addr {
        if self.network.is_some() { network::BRIDGE } else { Ipv4Addr::LOCALHOST }
    }

    /// Tokens cross the run's own network in the clear.
    fn profile(&self) -> &'static str {
        if self.network.is_some() { "development" } else { "production" }
    }
}

/// Builds the program, makes a shop, tortures it, prints the tables: behind walls where the machine allows.
pub(crate) fn run(args: &TortureArgs) -> Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()));
    if let Some(inside) = &args.inside {
        let is_good = torture(args, seed, &Ground::within(inside)?)?;
        return Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let program = build()?;
    println!("torture: seed {seed}, {} s, {} kills, {TILLS} tills in {BRANCHES} branches", args.seconds, args.kills);
    let directory = std::env::temp_dir().join(format!("mstore-torture-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let outcome = match Walls::find(&directory) {
        Some(walls) => walls.run(args, seed, &program, &directory),
        None => torture(args, seed, &Ground { program, directory: directory.clone(), has_walls: false, network: None }),
    };
    if matches!(outcome, Ok(true)) {
        fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("torture: logs and the tills' databases are in {}", directory.display());
    outcome.map(|_failed| ExitCode::FAILURE)
}

fn torture(args: &TortureArgs, seed: u64, ground: &Ground) -> Result<bool> {
    let begun = Instant::now();
    let mut shop = Shop::open(ground)?;
    println!("torture: the shop is open after {} s", begun.elapsed().as_secs());
    let foreign = Foreign::start(&shop.server.database(), PRODUCTS, &branches(), seed);
    let mut storm = Storm::new(&mut shop, seed, args.seconds, args.kills);
    let raged = storm.rage(args.seconds, args.kills);
    let tally = storm.tally.clone();
    let written = foreign.stop()?;
    raged?;
    println!("torture: {} kills after {} s; everything mended, the tills send what they have", tally.kills(), begun.elapsed().as_secs());
    shop.close_tills()?;
    let checks = verdict::compare(&shop, &tally, args.kills)?;
    verdict::print(&shop, &tally, &written, &checks);
    let is_good = checks.iter().all(verdict::Check::is_good);
    let verdict = if is_good { "nothing lost, nothing doubled, all equal" } else { "FAILED" };
    println!("\ntorture: {verdict}; seed {seed}, {} s", begun.elapsed().as_secs());
    shop.close();
    Ok(is_good)
}

impl Shop {
    /// A shop with stock, and tills that have synced once.
    fn open(ground: &Ground) -> Result<Self> {
        let broker = Mosquitto::start(&ground.directory)?;
        let server = Server::new(ground, broker.port)?;
        let mut shop = Self { server, broker, tills: Vec::new() };
        shop.server.start(None)?;
        shop.server.wait_ready()?;
        for branch in branches() {
            process::output(shop.server.admin().args(["trigger", "shop", &branch, "--products", &PRODUCTS.to_string()]))?;
        }
        letters::forbid_below_zero(&shop.server.database())?;
        for n in 0..TILLS {
            shop.enrol(ground, n)?;
        }
        shop.restart_server(None)?;
        Ok(shop)
    }

    /// A till learns where its broker is when it enrols: each is told of a cable of its own.
    fn enrol(&mut self, ground: &Ground, n: usize) -> Result<()> {
        let at = ground.address();
        let (http, mqtt) = (Gate::open(at, self.server.port)?, Gate::open(at, self.broker.port)?);
        self.restart_server(Some(mqtt.address))?;
        let (name, branch) = (format!("till-{n:02}"), &branches()[n % BRANCHES]);
        let link = ground.network.as_ref().map(|network| network.connect(&name, n)).transpose()?;
        let mut till = Till::new(ground, &name, branch, link, (http, mqtt));
        let claim = self.server.claim(&till.name, &till.branch)?;
        till.start(Some(&claim))?;
        until("till that has enrolled and synced", || {
            let heard = till.heard();
            heard.enrolled && heard.state == "live"
        })?;
        self.tills.push(till);
        Ok(())
    }

    fn restart_server(&mut self, till_mqtt: Option<SocketAddr>) -> Result<()> {
        if let Some(process) = self.server.process.take() {
            process.kill();
        }
        self.server.start(till_mqtt)?;
        self.server.wait_ready()
    }

    /// Every till sends what it has, fetches what it missed, lists what was refused, and ends.
    fn close_tills(&mut self) -> Result<()> {
        self.ask_all("drain", |heard| heard.drained = None, |heard| heard.drained == Some(true))?;
        // Once more, now that nobody sells any more: the last till's sales reach all others.
        self.ask_all("dead", |heard| heard.has_listed = false, |heard| heard.has_listed)?;
        for till in &mut self.tills {
            till.say("sync");
            till.say("quit");
        }
        for till in &mut self.tills {
            let Some(process) = till.process.take() else { continue };
            let status = process.ended()?;
            ensure!(status.success(), "{} ended with {status}", till.name);
        }
        Ok(())
    }

    /// Gives all tills a command, again to those that answer with a failure.
    fn ask_all(&mut self, command: &str, forget: fn(&mut Heard), is_done: fn(&Heard) -> bool) -> Result<()> {
        for till in &mut self.tills {
            forget(&mut till.heard());
            till.say(command);
        }
        until(&format!("answer to `{command}` from every till"), || {
            for till in &mut self.tills {
                let failed = till.heard().drained == Some(false);
                if failed {
                    till.heard().drained = None;
                    till.say(command);
                }
            }
            self.tills.iter().all(|till| is_done(&till.heard()))
        })
    }

    /// The tills' own links, in words.
    fn links(&self) -> String {
        let kind = match self.tills.iter().map(|till| till.link.as_ref().map(|link| link.is_bad)).min().flatten() {
            Some(true) => "a network namespace for each; delay and loss on every link besides",
            Some(false) => "a network namespace for each; no delay and loss: no netem here",
            None => "not here: no network namespaces",
        };
        format!("tills' links set down ({kind})")
    }

    /// Ends what is left, the server before the disk that it stands on.
    fn close(mut self) {
        self.tills.clear();
        drop(self.server.process.take());
        drop(self.broker.process.take());
    }
}

/// The program as the tests have it. The workspace and a test target among the targets: with them cargo selects the features that `cargo test --workspace`
/// selects, and after it nothing is left to build.
fn build() -> Result<PathBuf> {
    let mut command = cargo::cargo("build");
    command.args(["--workspace", "--bin", "mstore-sync", "--test", TEST, "--message-format", "json-render-diagnostics"]);
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "mstore-sync does not compile");
    let text = String::from_utf8_lossy(&output.stdout);
    let executables = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = executables.filter(|message| message["target"]["kind"] == serde_json::json!(["bin"]));
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo named no program")
}

fn branches() -> Vec<String> {
    (1..=BRANCHES).map(|n| format!("m1/b{n}")).collect()
}

/// The id of the `n`-th product.
fn product(n: usize) -> String {
    format!("SKU-{:05}", n + 1)
}

/// Nobody else's settings reach the processes.
fn without_settings(command: &mut Command) {
    for (name, _value) in std::env::vars().filter(|(name, _value)| name.starts_with("MSTORE_")) {
        command.env_remove(name);
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?.local_addr()?.port())
}
