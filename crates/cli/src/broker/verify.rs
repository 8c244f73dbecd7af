//! `broker verify`: every case of the access matrix on a live broker, with throw-away devices that the real server enrols, moves and shuts out.

mod cases;
mod ground;
mod lifecycle;
mod mqtt;
mod play;
mod stage;
mod version;
mod witnesses;

use std::{path::Path, sync::Arc, time::Duration};

use mstore_broker::BrokerUrl;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::{
    cases::Case,
    ground::Ground,
    mqtt::{Login, Place},
    play::{Outcome, Played},
    stage::Stage,
};
use crate::{
    api::AdminApi,
    args::{BrokerKind, VerifyBrokerArgs},
    broker_config::read_secret,
    failure::Failure,
    table,
};

/// A case that takes longer hangs.
const CASE_WITHIN: Duration = Duration::from_secs(60);

#[allow(clippy::print_stdout)]
pub(super) async fn run(args: VerifyBrokerArgs) -> Result<(), Failure> {
    let backend = Login::new(&args.backend_username, secret(&args.backend_password_file)?);
    let observer = match (&args.observer_username, &args.observer_password_file) {
        (Some(name), Some(file)) => Some(Login::new(name, secret(file)?)),
        (_, _) => None,
    };
    let stage = Stage::set(AdminApi::from_args(&args.admin)?).await?;
    let url = args.url.as_deref().unwrap_or(&stage.mqtt_url);
    let url: BrokerUrl = url.parse().map_err(|why| Failure::usage(format!("--url: {why}")))?;
    let tls = url.tls.then(|| trust(args.broker_ca.as_deref())).transpose()?;
    let place = Place { url, tls };
    let version = version::version(&args, &place, observer.as_ref()).await?;
    let cases = cases::cases(&stage.env, &args.cases);
    let mut ground = Ground::new(place, stage, backend, observer);
    let mut results = Vec::new();
    for case in cases {
        let played = match timeout(CASE_WITHIN, play::play(&mut ground, &case)).await {
            Ok(played) => played,
            Err(_late) => Err(Failure::check(format!("not done within {CASE_WITHIN:?}"))),
        };
        results.push(Tried { case, played: played.map_err(|failure| failure.to_string()) });
    }
    ground.stage.clear().await;
    let report = Report { kind: args.kind, version, url: ground.place.url.to_string(), tried: results };
    println!("{}", if args.json { report.json().to_string() } else { report.text() });
    report.verdict()
}

fn secret(file: &Path) -> Result<Vec<u8>, Failure> {
    read_secret(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// Authorities from a file, or the system's.
fn trust(authorities: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = match authorities {
        Some(file) => CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| Failure::usage(format!("--broker-ca {}: {error}", file.display())))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// One case and what became of it.
struct Tried {
    case: Case,
    played: Result<Played, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    Wrong,
    Unseen,
}

impl Tried {
    fn mark(&self) -> Mark {
        match &self.played {
            Ok((Outcome::Unseen, _)) => Mark::Unseen,
            Ok((outcome, _)) if (*outcome == Outcome::Allowed) == self.case.is_allowed => Mark::Ok,
            Ok(_) | Err(_) => Mark::Wrong,
        }
    }

    fn words(&self) -> [&str; 3] {
        let expected = if self.case.is_allowed { "allow" } else { "deny" };
        let (happened, note) = match &self.played {
            Ok((Outcome::Allowed, note)) => ("allow", note),
            Ok((Outcome::Denied, note)) => ("deny", note),
            Ok((Outcome::Unseen, note)) => ("unseen", note),
            Err(why) => ("failed", why),
        };
        [expected, happened, note]
    }
}

/// All of them.
struct Report {
    kind: BrokerKind,
    /// None where nobody could be asked.
    version: Option<String>,
    url: String,
    tried: Vec<Tried>,
}

impl Report {
    fn count(&self, mark: Mark) -> usize {
        self.tried.iter().filter(|tried| tried.mark() == mark).count()
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .tried
            .iter()
            .map(|tried| {
                let mark = match tried.mark() {
                    Mark::Ok => "ok",
                    Mark::Wrong => "WRONG",
                    Mark::Unseen => "?",
                };
                let Case { name, actor, action, shown, .. } = &tried.case;
                let [expected, happened, note] = tried.words();
                [name, actor, action, shown, expected, happened, mark, note].map(str::to_owned).to_vec()
            })
            .collect();
        let table = table::render(&["case", "actor", "action", "topic", "expected", "happened", "", "the broker"], &rows);
        format!("{table}\n\n{}", self.sentence())
    }

    fn json(&self) -> Value {
        let cases: Vec<Value> = self
            .tried
            .iter()
            .map(|tried| {
                let [expected, happened, note] = tried.words();
                let Case { name, actor, action, shown, .. } = &tried.case;
                json!({"case": name, "actor": actor, "action": action, "topic": shown, "expected": expected, "happened": happened,
                    "ok": tried.mark() == Mark::Ok, "note": note})
            })
            .collect();
        let [ok, wrong, unseen] = [Mark::Ok, Mark::Wrong, Mark::Unseen].map(|mark| self.count(mark));
        json!({"broker": self.name(), "version": self.version, "url": self.url, "ok": ok, "wrong": wrong, "unseen": unseen, "cases": cases})
    }

    fn name(&self) -> String {
        format!("{:?}", self.kind).to_lowercase()
    }

    fn sentence(&self) -> String {
        let (ok, all, unseen) = (self.count(Mark::Ok), self.tried.len(), self.count(Mark::Unseen));
        let open = if unseen > 0 { format!("; {unseen} that only an observer could see (--observer-username)") } else { String::new() };
        let version = self.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
        format!("{}{version} at {}: {ok} of {all} cases as expected{open}", self.name(), self.url)
    }

    fn verdict(&self) -> Result<(), Failure> {
        let wrong: Vec<&str> =
            self.tried.iter().filter(|tried| tried.mark() == Mark::Wrong).map(|tried| tried.case.name.as_str()).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Failure::check(format!("not as expected: {}", wrong.join(", ")))
            .next("the page Brokers of the guide says what each of them cannot do"))
    }
}
