//! NATS with MQTT: its users are lines of a file, and it reads the file again when it is told to.
//!
//! It cannot bind a client id to a user: whoever knows a device's id and has an account of his own cuts that device off. It cannot tell that a
//! password is right without bcrypt or the plain text; tokens are 256 random bits, so the cheapest bcrypt is enough.

mod users;

use std::{
    fmt,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use mstore_protocol::{DeviceId, Env};
use reqwest::Client;
use serde_json::Value;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};

use self::users::Users;
pub use self::users::{NATS_BEGIN, NATS_END};
use crate::{
    broker::Kicked,
    external::Login,
    registrar::{Account, AccountBook, Registrar, RegistrarError, Settled},
};

/// After the signal it has read the file within this, or something is wrong with it.
const RELOADED_WITHIN: Duration = Duration::from_secs(5);
/// It says when it read its configuration last; asked this often.
const ASK_EVERY: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where NATS keeps what it is told.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// The file of its users, with our two marks in it; included by its configuration.
    pub users_file: PathBuf,
    /// Its process id, as `pid_file` writes it: it is told to read the file again by a signal.
    pub pid_file: PathBuf,
    /// Its monitoring, `http://127.0.0.1:8222`: says when it has.
    pub monitor_url: String,
    /// The deployment.
    pub env: Env,
    /// The server's own accounts there: one that publishes, one that listens whether that arrives.
    pub backend: Option<Login>,
    /// The second of them.
    pub canary: Option<Login>,
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users_file, pid_file, monitor_url, env, backend, canary } = self;
        write!(f, "NatsConfig({users_file:?}, {pid_file:?}, {monitor_url}, {env}, {backend:?}, {canary:?})")
    }
}

/// Keeps the users of a NATS on this machine.
pub struct Nats {
    config: NatsConfig,
    http: Client,
    reached: watch::Sender<u64>,
    held: Mutex<Held>,
}

/// What the file and NATS are known to hold.
struct Held {
    /// What is in the file; nothing before it was read.
    users: Option<Users>,
    /// NATS may not have read it since it was written.
    is_unread: bool,
}

impl Nats {
    /// Touches nothing yet.
    pub fn new(config: NatsConfig) -> Result<Self, RegistrarError> {
        let http = Client::builder().timeout(ANSWER_WITHIN).build().map_err(|error| RegistrarError::Away(error.to_string()))?;
        Ok(Self { config, http, reached: watch::Sender::new(1), held: Mutex::new(Held { users: None, is_unread: true }) })
    }

    /// The users of the file, with the server's own in it.
    async fn read(&self) -> Result<Users, RegistrarError> {
        let text = tokio::fs::read_to_string(&self.config.users_file).await.map_err(|error| self.unusable(&error))?;
        let mut users = Users::parse(&text).map_err(|why| self.unusable(&why))?;
        let NatsConfig { env, backend, canary, .. } = &self.config;
        users.put_own(env, backend.as_ref(), canary.as_ref());
        Ok(users)
    }

    fn unusable(&self, why: &dyn fmt::Display) -> RegistrarError {
        RegistrarError::Away(format!("{}: {why}", self.config.users_file.display()))
    }

    /// Writes the file if it is to be another one, and waits until NATS has read it. If that fails, all of it is done again next time.
    async fn apply(&self, held: &mut Held, mut users: Users) -> Result<(), RegistrarError> {
        if users.is_changed() {
            let (text, file) = (users.to_text(), self.config.users_file.clone());
            held.is_unread = true;
            let written = tokio::task::spawn_blocking(move || replace(&file, &text)).await;
            written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.unusable(&error))?;
            users.saved();
        }
        if held.is_unread {
            self.reload().await?;
            held.is_unread = false;
        }
        held.users = Some(users);
        Ok(())
    }

    async fn reload(&self) -> Result<(), RegistrarError> {
        let before = self.loaded_at().await?;
        self.signal().await?;
        let begun = Instant::now();
        while self.loaded_at().await? == before {
            if begun.elapsed() > RELOADED_WITHIN {
                return Err(RegistrarError::Away(format!("NATS has not read its users again within {RELOADED_WITHIN:?}; see its log")));
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// When it read its configuration last, in its own words.
    async fn loaded_at(&self) -> Result<Value, RegistrarError> {
        let away = |error: reqwest::Error| RegistrarError::Away(error.without_url().to_string());
        let answer = self.http.get(format!("{}/varz", self.config.monitor_url)).send().await.map_err(away)?;
        let body = answer.bytes().await.map_err(away)?;
        let said: Value = serde_json::from_slice(&body).map_err(|error| RegistrarError::Away(format!("its monitoring: {error}")))?;
        Ok(said["config_load_time"].clone())
    }

    async fn signal(&self) -> Result<(), RegistrarError> {
        let file = self.config.pid_file.display();
        let text = tokio::fs::read_to_string(&self.config.pid_file).await;
        let text = text.map_err(|error| RegistrarError::Away(format!("{file}: {error}")))?;
        let process: u32 = text.trim().parse().map_err(|error| RegistrarError::Away(format!("{file}: {error}")))?;
        let sent = tokio::process::Command::new("kill").args(["-HUP", &process.to_string()]).output().await;
        match sent {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(RegistrarError::Away(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            Err(error) => Err(RegistrarError::Away(format!("kill: {error}"))),
        }
    }
}

/// In one step: a NATS that starts in the middle finds the old file or the new one.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let draft = file.with_extension("draft");
    let mut written = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&draft)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    // NATS may run under another account, to which the file belongs.
    if let Ok(known) = std::fs::metadata(file) {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::set_permissions(&draft, known.permissions())?;
        let _not_root = std::os::unix::fs::chown(&draft, Some(known.uid()), Some(known.gid()));
    }
    std::fs::rename(&draft, file)
}

#[async_trait]
impl Registrar for Nats {
    fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// NATS closes the connections of users that are gone or changed when it reads the file.
    async fn settle(&self, device: &DeviceId, wanted: Option<&Account>) -> Result<Settled, RegistrarError> {
        let mut held = self.held.lock().await;
        let mut users = match held.users.take() {
            Some(users) => users,
            None => self.read().await?,
        };
        if users.is_taken(device.as_str()) {
            held.users = Some(users);
            return Err(RegistrarError::Foreign(device.clone()));
        }
        let changed = match wanted {
            Some(account) => users.put(account).map_err(|why| RegistrarError::Refused(why.to_string()))?,
            None => users.remove(device),
        };
        self.apply(&mut held, users).await?;
        Ok(if changed { Settled::Changed } else { Settled::Unchanged })
    }

    async fn end_session(&self, _device: &DeviceId) -> Result<Kicked, RegistrarError> {
        Ok(Kicked::Closed)
    }

    /// Everything goes with one reading of the file, so what differs is mended at once.
    async fn survey(&self, book: &dyn AccountBook) -> Result<Vec<DeviceId>, RegistrarError> {
        let mut held = self.held.lock().await;
        held.users = None;
        let mut users = self.read().await?;
        let mut unknown = users.devices();
        let (mut after, mut taken) = (None, Vec::new());
        loop {
            let (page, next) = book.accounts(after.as_ref()).await?;
            for account in page {
                unknown.remove(account.device.as_str());
                if users.is_taken(account.device.as_str()) {
                    taken.push(account.device);
                    continue;
                }
                users.put(&account).map_err(|why| RegistrarError::Refused(why.to_string()))?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for stranger in unknown {
            users.remove_named(&stranger);
        }
        self.apply(&mut held, users).await?;
        Ok(taken)
    }
}
