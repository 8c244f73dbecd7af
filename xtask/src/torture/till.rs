//! A till process and the witness of what it confirmed: a sale counts from the moment that the till said so, whatever happens to it after.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use serde_json::Value;

use super::{
    Ground,
    gate::{Cable, Gate},
    network::Link,
    process::Process,
};

/// What a till said so far, over all its lives.
#[derive(Default, Clone)]
pub(super) struct Heard {
    /// Operations that the till said are on its disk, with what was done.
    pub(super) confirmed: BTreeMap<String, String>,
    /// What it could not do, by reason: a till that cannot write says so and has sold nothing.
    pub(super) failed: BTreeMap<String, usize>,
    /// Operations that the till shows as refused.
    pub(super) dead_letters: Vec<String>,
    /// The last answers to `drain` and `dead`.
    pub(super) drained: Option<bool>,
    pub(super) has_listed: bool,
    pub(super) enrolled: bool,
    pub(super) state: String,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        match event["event"].as_str().unwrap_or_default() {
            what @ ("sold" | "took_back" | "stock_moved" | "sent_again") => drop(self.confirmed.insert(text("operation"), what.to_owned())),
            "failed" | "not_understood" => *self.failed.entry(text("detail")).or_default() += 1,
            "drained" => self.drained = Some(true),
            "not_drained" => self.drained = Some(false),
            "dead_letters" => {
                let letters = event["items"].as_array().into_iter().flatten();
                self.dead_letters = letters.filter_map(|letter| letter["operation"].as_str().map(str::to_owned)).collect();
                self.has_listed = true;
            }
            "enrolled" => self.enrolled = true,
            "status" => self.state = text("state"),
            _other => {}
        }
    }
}

pub(super) struct Till {
    pub(super) name: String,
    pub(super) branch: String,
    pub(super) database: PathBuf,
    program: PathBuf,
    log: PathBuf,
    profile: &'static str,
    /// In a namespace of its own.
    pub(super) link: Option<Link>,
    pub(super) http: Gate,
    pub(super) mqtt: Gate,
    pub(super) process: Option<Process>,
    heard: Arc<Mutex<Heard>>,
}

impl Till {
    pub(super) fn new(ground: &Ground, name: &str, branch: &str, link: Option<Link>, (http, mqtt): (Gate, Gate)) -> Self {
        Self {
            name: name.to_owned(),
            branch: branch.to_owned(),
            database: ground.directory.join(format!("{name}.db")),
            program: ground.program.clone(),
            log: ground.directory.join(format!("{name}.log")),
            profile: ground.profile(),
            link,
            http,
            mqtt,
            process: None,
            heard: Arc::default(),
        }
    }

    pub(super) fn start(&mut self, claim: Option<&str>) -> Result<()> {
        let mut command = self.link.as_ref().map_or_else(|| Command::new(&self.program), |link| link.command(&self.program));
        super::without_settings(&mut command);
        command.args(["device", "run", "--json", "--profile", self.profile, "--server", &format!("http://{}", self.http.address)]);
        command.arg("--db").arg(&self.database);
        if let Some(claim) = claim {
            command.args(["--claim", claim]);
        }
        let heard = self.heard.clone();
        let hear = move |line: &str| heard.lock().unwrap_or_else(PoisonError::into_inner).hear(line);
        self.process = Some(Process::start(&mut command, &self.log, hear)?);
        Ok(())
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&mut self, line: &str) {
        if let Some(process) = &mut self.process {
            process.say(line);
        }
    }

    pub(super) fn set_cables(&self, http: Cable, mqtt: Cable) {
        self.http.set(http);
        self.mqtt.set(mqtt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_till_said_is_confirmed() {
        let mut heard = Heard::default();
        for line in [
            r#"{"event":"sold","operation":"op-1","receipt_no":"R-1"}"#,
            r#"{"event":"failed","detail":"disk full"}"#,
            r#"{"event":"status","state":"live"}"#,
            r#"{"event":"dead_letters","items":[{"operation":"op-0"}]}"#,
            r#"{"event":"sold","operation":"op-2","#,
        ] {
            heard.hear(line);
        }
        assert_eq!(heard.confirmed.keys().collect::<Vec<_>>(), ["op-1"]);
        assert_eq!((heard.failed["disk full"], heard.state.as_str()), (1, "live"));
        assert_eq!((heard.dead_letters.as_slice(), heard.has_listed), (["op-0".to_owned()].as_slice(), true));
    }
}
