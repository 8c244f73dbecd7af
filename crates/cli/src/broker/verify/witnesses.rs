//! Who could see a forbidden publication: a device of each branch, and an observer of everything if there is one.

use super::{
    ground::Ground,
    mqtt::{Answer, Arrived, Client},
};
use crate::failure::Failure;

/// Subscribers, each with a topic that closes its observation.
pub(super) struct Witnesses {
    watching: Vec<(Client, String)>,
    /// Whether somebody would see the topic that they were called for.
    pub(super) can_tell: bool,
}

impl Witnesses {
    /// Those who are there, for a message on this topic.
    pub(super) async fn call(ground: &Ground, topic: &str) -> Result<Self, Failure> {
        let mut watching = Vec::new();
        let mut can_tell = false;
        for (actor, branch) in [("devA2", "prod/m1/b1"), ("devB", "prod/m1/b2"), ("devX", "prod/m2/b7")] {
            let mut client = ground.device(actor).await?;
            for filter in ["+/updates", "sync/head"] {
                subscribe(&mut client, &ground.topic(&format!("{branch}/{filter}"))).await?;
            }
            can_tell |= topic.starts_with(&ground.topic(&format!("{branch}/")));
            watching.push((client, ground.topic(&format!("{branch}/product/updates"))));
        }
        if let Some(mut observer) = ground.observer("witness").await? {
            subscribe(&mut observer, "#").await?;
            // No wildcard includes a topic that begins like this.
            can_tell |= !topic.starts_with('$') || observer.subscribe(topic).await == Answer::Granted;
            watching.push((observer, ground.topic("prod/m1/b1/product/updates")));
        }
        Ok(Self { watching, can_tell })
    }

    /// Everything that anybody saw.
    pub(super) async fn testify(mut self, ground: &mut Ground) -> Result<Vec<Arrived>, Failure> {
        let mut seen = Vec::new();
        for (client, topic) in &mut self.watching {
            seen.extend(ground.everything(client, topic).await?);
        }
        Ok(seen)
    }

    /// Waits until the last of them, who sees most, has seen this payload.
    pub(super) async fn has_seen(&mut self, payload: &[u8], within: std::time::Duration) -> bool {
        let Some((client, _)) = self.watching.last_mut() else { return false };
        while let Some(arrived) = client.next_within(within).await {
            if arrived.payload == payload {
                return true;
            }
        }
        false
    }
}

pub(super) async fn subscribe(client: &mut Client, filter: &str) -> Result<(), Failure> {
    match client.subscribe(filter).await {
        Answer::Granted => Ok(()),
        refused @ (Answer::Refused(_) | Answer::Closed) => {
            Err(Failure::check(format!("the broker refuses {filter} to somebody who may use it: {refused:?}")))
        }
    }
}
