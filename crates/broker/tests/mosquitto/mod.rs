//! A real Mosquitto on a free port, with its files in a directory of its own.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::common::soon;

/// A running Mosquitto; killed when dropped.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    child: Child,
    dir: TempDir,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Mosquitto {
    /// Starts one that lets anybody in, with further lines of configuration; `None`, said aloud, where there is no Mosquitto and that is allowed.
    pub(crate) async fn start(more: &str, test: &str) -> Option<Self> {
        Self::launch(tempfile::tempdir().unwrap(), &format!("allow_anonymous true\n{more}"), test).await
    }

    /// Starts one with accounts whose passwords are `pw-` and their name, and with access rules.
    pub(crate) async fn with_accounts(names: &[&str], acl: &str, test: &str) -> Option<Self> {
        if !is_installed(test) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (passwords, rules) = (dir.path().join("passwords"), dir.path().join("acl"));
        fs::write(&passwords, "").unwrap();
        fs::write(&rules, acl).unwrap();
        for name in names {
            let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([name, &format!("pw-{name}").as_str()]).status();
            assert!(made.unwrap().success());
        }
        let (passwords, rules) = (passwords.display(), rules.display());
        Self::launch(dir, &format!("allow_anonymous false\npassword_file {passwords}\nacl_file {rules}\n"), test).await
    }

    async fn launch(dir: TempDir, more: &str, test: &str) -> Option<Self> {
        if !is_installed(test) {
            return None;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        // Run by root it would become another user, who may not read the directory.
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let text = format!(
            "per_listener_settings false\nlistener {port} 127.0.0.1\nset_tcp_nodelay true\nmax_queued_messages 100000\nuser {}\n{more}",
            user.trim()
        );
        fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
        let child = spawn(&dir);
        let mut mosquitto = Self { port, child, dir };
        mosquitto.listening().await;
        Some(mosquitto)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    async fn listening(&mut self) {
        let addr = self.addr();
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        soon("mosquitto listening", async {
            while TcpStream::connect(addr).await.is_err() {
                assert!(self.child.try_wait().unwrap().is_none(), "mosquitto ended: {}", self.log());
                ticks.tick().await;
            }
        })
        .await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After a kill: again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.dir);
        self.listening().await;
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Other access rules, at once.
    pub(crate) fn set_acl(&mut self, acl: &str) {
        fs::write(self.dir.path().join("acl"), acl).unwrap();
        self.signal("HUP");
    }
}

fn spawn(dir: &TempDir) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = Command::new(executable().unwrap());
    command.arg("-c").arg(dir.path().join("mosquitto.conf")).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Debian keeps servers where a user's PATH may not look.
fn executable() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]).map(|dir| PathBuf::from(dir).join("mosquitto")).find(|file| file.is_file())
}

fn is_installed(test: &str) -> bool {
    let is_there = executable().is_some();
    if !is_there {
        assert!(std::env::var_os("MSTORE_TEST_SKIP_MISSING").is_some(), "mosquitto is not installed: cargo xtask setup");
        writeln!(std::io::stdout().lock(), "\nskipped: {test}: mosquitto is not installed").unwrap();
    }
    is_there
}

/// A certificate authority of one certificate: the listener's and the client's.
pub(crate) struct TlsDirectory {
    _dir: TempDir,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsDirectory {
    pub(crate) fn make() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let ca_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "backend");
        let cert = params.signed_by(&key, &issuer).unwrap().pem();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let (ca, cert, key) = (write("ca.pem", ca_pem), write("cert.pem", cert), write("key.pem", key.serialize_pem()));
        Self { _dir: dir, ca, cert, key }
    }

    /// Lines that make the listener speak TLS, and ask for a certificate.
    pub(crate) fn listener(&self) -> String {
        let (ca, cert, key) = (self.ca.display(), self.cert.display(), self.key.display());
        format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n")
    }
}
