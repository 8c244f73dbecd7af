//! Whether the broker forwards what we publish: a throw-away device listens while the backend sings.
//!
//! An MQTT 3.1.1 acknowledgement says "I have it", not "you may": Mosquitto and NATS acknowledge what an ACL refuses, and throw it away.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use mstore_protocol::Env;
use rumqttc::{AsyncClient, PublishOptions, QoS, SubscribeFilter, SubscribeReasonCode};
use tokio::time::{Instant, timeout_at};

use super::{
    config::{ExternalConfig, Login},
    connection::{Connection, Down},
    url::BrokerNode,
};

/// No merchant is called `devices`: the word is reserved. The topics have the shape of a branch's, so that the same rules decide about them.
pub(crate) fn topics(env: &Env) -> [String; 2] {
    [format!("{env}/devices/canary/product/updates"), format!("{env}/devices/canary/sync/head")]
}

/// Publishes on the backend's connection to a node and waits for it on a device's to the same; how long that took.
pub(super) async fn check(config: &ExternalConfig, node: &BrokerNode, login: &Login, backend: &AsyncClient) -> Result<Duration, Down> {
    // Brokers that bind the client id to the account let in only this one.
    let mut device = Connection::open(config, node, &login.username, Some(login)).await.map_err(|down| failed(login, &down))?;
    let topics = topics(&config.env);
    subscribe(&device, login, &topics).await?;
    let begun = Instant::now();
    let deadline = begun + config.timing.canary_within;
    let song = Bytes::from(format!("{:016x}", rand::random::<u64>()));
    for topic in &topics {
        let sent = backend.publish(topic.clone(), song.clone(), PublishOptions::new(QoS::AtLeastOnce));
        timeout_at(deadline, sent)
            .await
            .map_err(|_late| Down::Network("the broker takes no canary".into()))?
            .map_err(|error| Down::Network(error.to_string()))?;
    }
    let mut missing: BTreeSet<&[u8]> = topics.iter().map(String::as_bytes).collect();
    while !missing.is_empty() {
        match timeout_at(deadline, device.arrived.recv()).await {
            Ok(Some(heard)) if heard.payload == song => drop(missing.remove(&heard.topic[..])),
            // An older canary, or somebody else's.
            Ok(Some(_)) => {}
            Ok(None) => return Err(failed(login, &device.ended().await)),
            Err(_late) => return Err(discarded(&missing, config)),
        }
    }
    let took = begun.elapsed();
    device.close(config.timing.connect_within).await;
    Ok(took)
}

async fn subscribe(device: &Connection, login: &Login, topics: &[String]) -> Result<(), Down> {
    let filters: Vec<_> = topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce)).collect();
    let refused =
        |why: &str| Down::Canary(format!("the canary account {} cannot subscribe to {}: {why}", login.username, topics.join(", ")));
    let asked = device.client.subscribe_many_tracked(filters).await.map_err(|error| refused(&error.to_string()))?;
    // The connection's own silence limit ends this wait.
    let answer = asked.wait_async().await.map_err(|error| refused(&error.to_string()))?;
    let denied = answer.return_codes.iter().any(|code| matches!(code, SubscribeReasonCode::Failure));
    if denied { Err(refused("refused")) } else { Ok(()) }
}

fn failed(login: &Login, down: &Down) -> Down {
    let why = format!("the canary account {}: {down}", login.username);
    match down {
        Down::Login(_) | Down::Canary(_) => Down::Canary(why),
        Down::Network(_) => Down::Network(why),
    }
}

fn discarded(missing: &BTreeSet<&[u8]>, config: &ExternalConfig) -> Down {
    let missing: Vec<_> = missing.iter().map(|topic| String::from_utf8_lossy(topic)).collect();
    Down::Canary(format!(
        "the broker acknowledges what is published and throws it away: nothing came back on {} within {:?}; \
         let the backend's account publish to {env}/+/+/+/updates and {env}/+/+/sync/head, and the canary's read them",
        missing.join(", "),
        config.timing.canary_within,
        env = config.env,
    ))
}
