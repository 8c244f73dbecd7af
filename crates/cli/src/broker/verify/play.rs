//! Plays one case and says what really happened. What counts is the effect: a message that arrived, or did not; an answer alone proves nothing.

use std::time::{Duration, Instant};

use super::{
    cases::Case,
    ground::{Ground, QUIET},
    lifecycle,
    mqtt::{Answer, Arrived, Client, Login, NoConnection, WILL},
    witnesses::{Witnesses, subscribe},
};
use crate::failure::Failure;

/// A will is published when the broker notices the end of a connection.
const WILL_WITHIN: Duration = Duration::from_secs(5);
/// The same without anybody who could show how long it takes.
const WILL_QUIET: Duration = Duration::from_millis(750);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    /// Nobody was there who could have seen it.
    Unseen,
}

/// What happened, and what the broker said.
pub(super) type Played = (Outcome, String);

pub(super) async fn play(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    match case.kind() {
        'C' => connect(ground, case).await,
        'S' => try_filter(ground, case).await,
        'P' if case.action.starts_with("will") => will(ground, case).await,
        'K' if case.action == "subscribe" => backend_subscribe(ground, case).await,
        'P' | 'K' => publish(ground, case).await,
        'D' => delivery(ground, case).await,
        'L' => lifecycle::play(ground, case).await,
        _unknown => Err(Failure::check(format!("nobody knows how to play {}", case.name))),
    }
}

async fn connect(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let own = ground.stage.login("devA");
    let login = match case.name.as_str() {
        "C01" => own,
        "C02" => Login { password: Some("wrong".into()), ..own },
        "C03" => Login { username: None, password: None, ..own },
        "C04" => Login::new("mstore-verify-stranger", "none"),
        "C05" => return takeover(ground).await,
        "C06" => Login { password: Some("".into()), ..own },
        other => return Err(Failure::check(format!("nobody knows how to play {other}"))),
    };
    accepted(ground, &login).await
}

/// Accepted means able to work: a subscription brings a message.
pub(super) async fn accepted(ground: &mut Ground, login: &Login) -> Result<Played, Failure> {
    let mut client = match ground.connect(login).await {
        Ok(client) => client,
        Err(NoConnection::Away(why)) => return Err(Failure::unavailable(format!("no broker at {}: {why}", ground.place.url))),
        Err(refused) => return Ok((Outcome::Denied, said(&refused))),
    };
    let topic = ground.topic("prod/m1/b1/product/updates");
    let answer = client.subscribe(&topic).await;
    if answer != Answer::Granted {
        return Ok((Outcome::Denied, format!("let in, but may not subscribe: {answer:?}")));
    }
    let is_served = ground.is_served(&mut client, &topic).await?;
    Ok(if is_served { (Outcome::Allowed, "served".into()) } else { (Outcome::Denied, "let in, but gets nothing".into()) })
}

fn said(refused: &NoConnection) -> String {
    match refused {
        NoConnection::Refused(code) => format!("connack {code}"),
        NoConnection::Closed => "closed".to_owned(),
        NoConnection::Away(why) => why.clone(),
    }
}

/// A device with good credentials and the client id of another that is online.
async fn takeover(ground: &mut Ground) -> Result<Played, Failure> {
    let topic = ground.topic("prod/m1/b1/product/updates");
    let mut owner = ground.device("devA").await?;
    subscribe(&mut owner, &topic).await?;
    let thief = Login { client_id: ground.stage.login("devA").client_id, ..ground.stage.login("devB") };
    let taken = ground.connect(&thief).await;
    let is_kept = ground.is_served(&mut owner, &topic).await?;
    let fate = if is_kept { "the owner stays" } else { "the owner is cut off" };
    Ok(match taken {
        Err(refused) if is_kept => (Outcome::Denied, format!("{}, {fate}", said(&refused))),
        Err(refused) => (Outcome::Allowed, format!("{}, {fate}", said(&refused))),
        Ok(_thief) => (Outcome::Allowed, format!("let in, {fate}")),
    })
}

async fn try_filter(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let mut client = ground.device(&case.actor).await?;
    let answer = client.subscribe(&case.topic).await;
    let note = match answer {
        Answer::Granted => "granted".to_owned(),
        Answer::Refused(code) => format!("suback {code:#x}"),
        Answer::Closed => "closed".to_owned(),
    };
    if case.is_allowed && answer == Answer::Granted {
        let topic = case.topic.replace('+', "product");
        let is_served = ground.is_served(&mut client, &topic).await?;
        return Ok(if is_served { (Outcome::Allowed, note) } else { (Outcome::Denied, "granted, but silent".into()) });
    }
    if answer == Answer::Closed {
        client = ground.device(&case.actor).await?;
    }
    let last = ground.topic("prod/m1/b1/transaction/updates");
    subscribe(&mut client, &last).await?;
    let probe = ground.mark();
    ground.publish_everywhere(&probe).await?;
    let leaked = ground.everything(&mut client, &last).await?;
    let leaked = leaked.iter().find(|arrived| arrived.payload == probe.as_bytes());
    Ok(match (leaked, answer) {
        (Some(leaked), _) => (Outcome::Allowed, format!("{note}, brings {}", leaked.topic)),
        (None, Answer::Granted) => (Outcome::Denied, "granted, but silent".into()),
        (None, _) => (Outcome::Denied, note),
    })
}

async fn publish(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let erases = case.action.contains("empty");
    let retain = case.action.contains("retained");
    let head = ground.mark();
    if erases {
        ground.publish(&case.topic, &head, true).await?;
    }
    let forged = if erases { String::new() } else { ground.mark() };
    let witnesses = Witnesses::call(ground, &case.topic).await?;
    let can_tell = witnesses.can_tell;
    let mut client = if case.actor == "backend" { ground.backend().await? } else { ground.device(&case.actor).await? };
    let answer = client.publish(&case.topic, forged.as_bytes(), u8::from(!case.action.contains("qos0")), retain).await;
    let mut note = if answer == Answer::Closed { "closed".to_owned() } else { "acknowledged".to_owned() };
    // A session that was closed because of its publish is none that went on.
    drop(client);
    let seen = witnesses.testify(ground).await?;
    let mut is_through = seen.iter().any(|seen| seen.topic == case.topic && seen.payload == forged.as_bytes());
    if retain {
        let kept = kept(ground, &case.topic).await?;
        let expected = if erases { head.as_bytes() } else { forged.as_bytes() };
        let is_kept = kept.iter().any(|kept| kept == expected);
        is_through |= is_kept != erases;
        note = format!("{note}, {}", if is_kept { "kept" } else { "not kept" });
        ground.publish(&case.topic, "", true).await?;
    }
    Ok(if is_through {
        (Outcome::Allowed, format!("{note}, forwarded"))
    } else if can_tell || answer == Answer::Closed {
        (Outcome::Denied, format!("{note}, not forwarded"))
    } else {
        (Outcome::Unseen, format!("{note}; only an observer could tell"))
    })
}

/// What the broker keeps for a topic of a branch, as a device of that branch finds it.
async fn kept(ground: &mut Ground, topic: &str) -> Result<Vec<bytes::Bytes>, Failure> {
    let actor = if topic.starts_with(&ground.topic("prod/m1/b2/")) { "devB" } else { "devA2" };
    let last = ground.topic(if actor == "devB" { "prod/m1/b2/transaction/updates" } else { "prod/m1/b1/transaction/updates" });
    let mut client = ground.device(actor).await?;
    subscribe(&mut client, &last).await?;
    subscribe(&mut client, topic).await?;
    let found = ground.everything(&mut client, &last).await?;
    Ok(found.into_iter().filter(|found| found.topic == topic).map(|found| found.payload).collect())
}

async fn will(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let mut witnesses = Witnesses::call(ground, &case.topic).await?;
    let retain = case.action.contains("retained");
    let login = Login { will: Some((case.topic.clone(), retain)), ..ground.stage.login(&case.actor) };
    let connected = match ground.connect(&login).await {
        Ok(client) => client,
        Err(refused) => return Ok((Outcome::Denied, said(&refused))),
    };
    drop(connected);
    // Somebody who may leave a will dies after it: when his has come, the other's would have.
    let control = "control";
    let mut is_shown = false;
    if let Some(observer) = ground.observer_login().cloned() {
        let topic = ground.topic("free/topic");
        let dying = Login { client_id: format!("mstore-verify-{control}"), will: Some((topic, false)), ..observer };
        drop(ground.enter(&dying).await?);
        is_shown = witnesses.has_seen(WILL, WILL_WITHIN).await;
    } else {
        tokio::time::sleep(WILL_QUIET).await;
    }
    let seen = witnesses.testify(ground).await?;
    let is_seen = |seen: &Arrived| seen.topic == case.topic && seen.payload == WILL;
    let is_kept = retain && kept(ground, &case.topic).await?.iter().any(|kept| kept == WILL);
    if is_kept {
        ground.publish(&case.topic, "", true).await?;
    }
    let note = if is_shown { "let in, its will is dropped (another's came)" } else { "let in, its will is dropped" };
    Ok(if is_kept || seen.iter().any(is_seen) {
        (Outcome::Allowed, "its will was published".into())
    } else {
        (Outcome::Denied, note.into())
    })
}

async fn backend_subscribe(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let mut backend = ground.backend().await?;
    let answer = backend.subscribe(&case.topic).await;
    let payload = ground.mark();
    ground.publish_everywhere(&payload).await?;
    let mut witness = ground.device("devA").await?;
    let topic = ground.topic("prod/m1/b1/product/updates");
    subscribe(&mut witness, &topic).await?;
    ground.everything(&mut witness, &topic).await?;
    let leaked = backend.next_within(QUIET).await;
    Ok(match (leaked, answer) {
        (Some(leaked), _) => (Outcome::Allowed, format!("brings {}", leaked.topic)),
        (None, answer) => (Outcome::Denied, format!("{answer:?}, brings nothing")),
    })
}

async fn delivery(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    if case.name == "D03" {
        return offline_delivery(ground, case).await;
    }
    let head = ground.mark();
    ground.publish(&case.topic, &head, true).await?;
    let mut client = ground.device(&case.actor).await?;
    let answer = client.subscribe(&case.topic).await;
    if answer == Answer::Closed {
        client = ground.device(&case.actor).await?;
    }
    let branch = if case.actor == "devB" { "prod/m1/b2" } else { "prod/m1/b1" };
    let last = ground.topic(&format!("{branch}/transaction/updates"));
    subscribe(&mut client, &last).await?;
    let found = ground.everything(&mut client, &last).await?;
    ground.publish(&case.topic, "", true).await?;
    let has_come = found.iter().any(|found| found.payload == head.as_bytes());
    Ok((if has_come { Outcome::Allowed } else { Outcome::Denied }, format!("{answer:?}, {}", if has_come { "came" } else { "nothing" })))
}

async fn offline_delivery(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    let login = ground.stage.persistent(&case.actor);
    let mut client = ground.enter(&login).await?;
    subscribe(&mut client, &case.topic).await?;
    client.disconnect().await;
    let payload = ground.mark();
    ground.publish(&case.topic, &payload, false).await?;
    let mut client = ground.enter(&login).await?;
    let begun = Instant::now();
    let mut has_come = false;
    while let Some(arrived) = client.next_within(Duration::from_secs(2)).await {
        has_come |= arrived.payload == payload.as_bytes();
        if has_come {
            break;
        }
    }
    let note = if has_come { format!("came after {} ms", begun.elapsed().as_millis()) } else { "lost".to_owned() };
    client.disconnect().await;
    // What the broker keeps for the session goes with it.
    wipe(ground, &case.actor).await?;
    Ok((if has_come { Outcome::Allowed } else { Outcome::Denied }, note))
}

/// A clean session ends the kept one.
pub(super) async fn wipe(ground: &Ground, actor: &str) -> Result<(), Failure> {
    let client: Client = ground.device(actor).await?;
    client.disconnect().await;
    Ok(())
}
