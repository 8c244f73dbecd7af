//! What every case is played on: the broker, the server's own account there, and whoever can see what arrives.

use std::time::Duration;

use super::{
    cases::translate,
    mqtt::{Answer, Arrived, Client, Login, NoConnection, Place},
    stage::Stage,
};
use crate::failure::Failure;

/// How long something that must arrive may take.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// How long nothing more may arrive behind the last message that was sent: brokers that keep a queue per subscription mix their order.
pub(super) const QUIET: Duration = Duration::from_millis(150);
/// A broker that has just closed a connection of the same client id may close the next one before it answers.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// Topics that refused filters would reach, as the matrix names them; the server's account may publish to these.
const OWN_TREE: [&str; 6] = [
    "prod/m1/b1/product/updates",
    "prod/m1/b1/sync/head",
    "prod/m1/b2/product/updates",
    "prod/m1/b2/sync/head",
    "prod/m1/b10/product/updates",
    "prod/m2/b1/product/updates",
];
/// Only an observer may publish to these.
const OUTSIDE: [&str; 4] = ["prod/m1/b1/product/updates/deep", "dev/m1/b1/product/updates", "/prod/m1/b1/product/updates", "free/topic"];

/// The live broker and everyone on it.
pub(super) struct Ground {
    pub(super) place: Place,
    pub(super) stage: Stage,
    backend: Login,
    observer: Option<Login>,
    /// An open connection of the server's account, for what must arrive.
    sender: Option<Client>,
    marks: u64,
}

impl Ground {
    pub(super) fn new(place: Place, stage: Stage, backend: Login, observer: Option<Login>) -> Self {
        Self { place, stage, backend, observer, sender: None, marks: 0 }
    }

    /// A topic of the matrix as it is called here.
    pub(super) fn topic(&self, text: &str) -> String {
        translate(text, &self.stage.env)
    }

    /// Tries to log in; a connection that is closed without an answer is tried again for a while.
    pub(super) async fn connect(&self, login: &Login) -> Result<Client, NoConnection> {
        let begun = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match Client::connect(&self.place, login).await {
                Err(NoConnection::Closed) if begun.elapsed() < SETTLES_WITHIN => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
    }

    /// Logs in somebody who must be let in.
    pub(super) async fn enter(&self, login: &Login) -> Result<Client, Failure> {
        self.connect(login).await.map_err(|why| {
            let name = login.username.as_deref().unwrap_or("nobody");
            Failure::unavailable(format!("{name} cannot log in to {}: {why:?}", self.place.url))
                .next("is the broker set up? mstore-sync broker setup; does the server keep its accounts? serve --broker-kind")
        })
    }

    pub(super) async fn device(&self, actor: &str) -> Result<Client, Failure> {
        self.enter(&self.stage.login(actor)).await
    }

    /// The server's account, beside the server's own connection.
    pub(super) async fn backend(&self) -> Result<Client, Failure> {
        let client_id = format!("mstore-verify-{:08x}", rand::random::<u32>());
        self.enter(&Login { client_id, ..self.backend.clone() }).await
    }

    /// Who sees everything, if there is anybody.
    pub(super) async fn observer(&self, id: &str) -> Result<Option<Client>, Failure> {
        let Some(login) = &self.observer else { return Ok(None) };
        let login = Login { client_id: format!("mstore-verify-{id}-{:08x}", rand::random::<u32>()), ..login.clone() };
        self.enter(&login).await.map(Some)
    }

    pub(super) fn observer_login(&self) -> Option<&Login> {
        self.observer.as_ref()
    }

    /// Publishes as the server does.
    pub(super) async fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> Result<(), Failure> {
        let mut sender = match self.sender.take() {
            Some(sender) => sender,
            None => self.backend().await?,
        };
        if sender.publish(topic, payload.as_bytes(), 1, retain).await != Answer::Granted {
            return Err(Failure::check(format!("the server's account cannot publish to {topic}")));
        }
        self.sender = Some(sender);
        Ok(())
    }

    /// A payload that nobody sent before.
    pub(super) fn mark(&mut self) -> String {
        self.marks += 1;
        format!("mstore-verify-{:08x}-{}", rand::random::<u32>(), self.marks)
    }

    /// Publishes to everything that there is.
    pub(super) async fn publish_everywhere(&mut self, payload: &str) -> Result<(), Failure> {
        for topic in OWN_TREE {
            self.publish(&self.topic(topic), payload, false).await?;
        }
        if let Some(mut observer) = self.observer("sender").await? {
            for topic in OUTSIDE {
                // A broker that takes no such topic closes the connection: then nobody receives it either.
                if observer.publish(&self.topic(topic), payload.as_bytes(), 1, false).await == Answer::Closed {
                    let Some(again) = self.observer("sender").await? else { break };
                    observer = again;
                }
            }
        }
        Ok(())
    }

    /// Sends a last message to a subscriber of this topic and gathers everything that arrives up to it, and shortly after.
    pub(super) async fn everything(&mut self, client: &mut Client, topic: &str) -> Result<Vec<Arrived>, Failure> {
        let last = self.mark();
        self.publish(topic, &last, false).await?;
        let mut before = Vec::new();
        loop {
            match client.next_within(ARRIVES_WITHIN).await {
                Some(arrived) if arrived.payload == last.as_bytes() => break,
                Some(arrived) => before.push(arrived),
                None => return Err(Failure::unavailable(format!("a message on {topic} does not arrive at a subscriber"))),
            }
        }
        while let Some(late) = client.next_within(QUIET).await {
            before.push(late);
        }
        Ok(before)
    }

    /// Whether a subscriber gets what is published to this topic.
    pub(super) async fn is_served(&mut self, client: &mut Client, topic: &str) -> Result<bool, Failure> {
        let payload = self.mark();
        self.publish(topic, &payload, false).await?;
        while let Some(arrived) = client.next_within(ARRIVES_WITHIN).await {
            if arrived.payload == payload.as_bytes() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
