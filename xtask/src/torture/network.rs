//! A network of the run's own: every till stands in a namespace and hangs on a bridge by a link that can be set down. Then packets vanish and
//! connections hang; nothing is reset and nobody is told. It needs the walls of the sandbox: it rearranges the network it is in.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::process;

/// Where the shop's side of every cable is reached.
pub(super) const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FIRST_TILL: u8 = 10;
/// A bad line, each way.
const NETEM: &[&str] = &["netem", "delay", "10ms", "5ms", "loss", "1%"];

pub(super) struct Network {
    directory: PathBuf,
}

impl Network {
    /// Makes the bridge.
    pub(super) fn lay(directory: &Path) -> Result<Self> {
        ip(&["link", "set", "dev", "lo", "up"])?;
        ip(&["link", "add", "name", "shop", "type", "bridge"])?;
        ip(&["address", "add", &format!("{BRIDGE}/24"), "dev", "shop"])?;
        ip(&["link", "set", "dev", "shop", "up"])?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The namespace and the link of the `n`-th till.
    pub(super) fn connect(&self, name: &str, n: usize) -> Result<Link> {
        let space = self.directory.join(format!("{name}.net"));
        File::create(&space).with_context(|| space.display().to_string())?;
        let mut named = std::ffi::OsString::from("--net=");
        named.push(&space);
        process::output(Command::new("unshare").arg(named).arg("true"))?;
        let mut pair = Command::new("ip");
        pair.args(["link", "add", "name", name, "type", "veth", "peer", "name", "cable", "netns"]).arg(&space);
        process::output(&mut pair)?;
        ip(&["link", "set", "dev", name, "master", "shop", "up"])?;
        let mut link = Link { name: name.to_owned(), space, is_bad: false };
        let host = FIRST_TILL.saturating_add(u8::try_from(n)?);
        let [a, b, c, _bridge] = BRIDGE.octets();
        let address = format!("{}/24", Ipv4Addr::new(a, b, c, host));
        for words in
            [["link", "set", "lo", "up"].as_slice(), &["address", "add", &address, "dev", "cable"], &["link", "set", "cable", "up"]]
        {
            process::output(link.command(Path::new("ip")).args(words))?;
        }
        link.is_bad = link.worsen();
        Ok(link)
    }
}

/// A till's way to the shop.
pub(super) struct Link {
    name: String,
    space: PathBuf,
    /// Whether it also delays and loses packets while it is up.
    pub(super) is_bad: bool,
}

impl Link {
    /// A program that has nothing but this link.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut space = std::ffi::OsString::from("--net=");
        space.push(&self.space);
        let mut command = Command::new("nsenter");
        command.arg(space).arg("--").arg(program);
        command
    }

    pub(super) fn set(&self, is_up: bool) -> Result<()> {
        ip(&["link", "set", "dev", &self.name, if is_up { "up" } else { "down" }])
    }

    /// Delay and loss in both directions; false where the kernel or the package does not have them.
    fn worsen(&self) -> bool {
        let mut here = Command::new("tc");
        here.args(["qdisc", "add", "dev", &self.name, "root"]).args(NETEM);
        let mut there = self.command(Path::new("tc"));
        there.args(["qdisc", "add", "dev", "cable", "root"]).args(NETEM);
        process::output(&mut here).is_ok() && process::output(&mut there).is_ok()
    }
}

fn ip(words: &[&str]) -> Result<()> {
    process::output(Command::new("ip").args(words)).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::torture::{
        process::Process,
        sandbox::Walls,
        wait::{pause_unless, until},
    };
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::mpsc::{TryRecvError, sync_channel},
        thread,
        time::Duration,
    };

    const TEST: &str = "torture::network::tests::a_link_that_is_down_swallows_and_resets_nothing";
    /// A connection to port `$1` of the shop: lines go there, what comes back is printed.
    const TILL: &str = "exec 3<>/dev/tcp/10.77.0.1/$1; while read -r line; do echo $line >&3; read -r back <&3; echo $back; done";

    /// Runs itself again inside, where links can be made.
    #[test]
    fn a_link_that_is_down_swallows_and_resets_nothing() {
        let directory = std::env::temp_dir().join("link");
        if std::process::id() == 1 {
            return inside(&directory);
        }
        let directory = directory.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(&directory).unwrap();
        if Walls::find(&directory) == Some(Walls::Network) {
            let mut again = Walls::Network.enter().unwrap();
            again.env("TMPDIR", &directory).arg(std::env::current_exe().unwrap()).args(["--exact", TEST, "--nocapture"]);
            let said = process::output(&mut again).unwrap();
            assert!(said.contains("1 passed"), "{said}");
        } else {
            println!("skipped: no network namespaces here");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    fn inside(directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        let link = Network::lay(directory).unwrap().connect("till-00", 0).unwrap();
        let shop = TcpListener::bind((BRIDGE, 0)).unwrap();
        let port = shop.local_addr().unwrap().port().to_string();
        thread::spawn(move || {
            let (mut till, _address) = shop.accept().unwrap();
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = till.read(&mut bytes) {
                till.write_all(&bytes[..count]).unwrap();
            }
        });
        let (sender, heard) = sync_channel(8);
        let mut command = link.command(Path::new("bash"));
        command.args(["-c", TILL, "bash", &port]);
        let mut till = Process::start(&mut command, &directory.join("log"), move |line| sender.send(line.to_owned()).unwrap()).unwrap();
        till.say("up");
        assert_eq!(heard.recv().unwrap(), "up");
        link.set(false).unwrap();
        till.say("down");
        let (_nobody_speaks, silence) = sync_channel(0);
        assert!(pause_unless(Duration::from_millis(300), &silence));
        assert_eq!(heard.try_recv(), Err(TryRecvError::Empty), "nothing comes through, and nobody is told");
        assert!(till.has_ended().is_none());
        link.set(true).unwrap();
        let mut line = None;
        until("line that was on its way", || {
            line = heard.try_recv().ok();
            line.is_some()
        })
        .unwrap();
        assert_eq!(line.unwrap(), "down", "it was only late");
    }
}
