//! The cases in which a device's rights change: at the server, while it works at the broker.

use std::time::{Duration, Instant};

use super::{
    cases::Case,
    ground::Ground,
    play::{Outcome, Played, accepted},
    witnesses::subscribe,
};
use crate::failure::Failure;

/// A revoked device is cut off within this.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);
/// A rotated token is known to the broker within this.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: &mut Ground, case: &Case) -> Result<Played, Failure> {
    match case.name.as_str() {
        "L01" => cut_off(ground).await,
        "L02" => {
            ground.stage.enrol_actor("devR").await?;
            let login = ground.stage.login("devR");
            if accepted(ground, &login).await?.0 != Outcome::Allowed {
                return Err(Failure::check("a device is not let in before it is revoked"));
            }
            ground.stage.revoke("devR").await?;
            accepted(ground, &login).await
        }
        "L03" => rotated(ground).await,
        "L04" => {
            let begun = Instant::now();
            ground.stage.enrol_actor("devN").await?;
            let took = begun.elapsed().as_millis();
            let login = ground.stage.login("devN");
            let (outcome, note) = accepted(ground, &login).await?;
            Ok((outcome, format!("{note}; enrolled in {took} ms")))
        }
        "L05" => moved(ground).await,
        other => Err(Failure::check(format!("nobody knows how to play {other}"))),
    }
}

async fn cut_off(ground: &mut Ground) -> Result<Played, Failure> {
    ground.stage.enrol_actor("devR").await?;
    let topic = ground.topic("prod/m1/b1/product/updates");
    let mut client = ground.device("devR").await?;
    subscribe(&mut client, &topic).await?;
    let begun = Instant::now();
    ground.stage.revoke("devR").await?;
    let is_closed = client.is_closed_within(CUT_OFF_WITHIN.saturating_sub(begun.elapsed())).await;
    Ok(if is_closed {
        (Outcome::Denied, format!("closed after {} ms", begun.elapsed().as_millis()))
    } else {
        let payload = ground.mark();
        ground.publish(&topic, &payload, false).await?;
        let still = client.next_within(CUT_OFF_WITHIN).await.is_some();
        (Outcome::Allowed, format!("not closed within {CUT_OFF_WITHIN:?}{}", if still { ", still served" } else { "" }))
    })
}

/// The new token works, and from its first use on the old one does not.
async fn rotated(ground: &mut Ground) -> Result<Played, Failure> {
    ground.stage.enrol_actor("devR").await?;
    let old = ground.stage.rotate("devR").await?;
    let new = ground.stage.login("devR");
    let begun = Instant::now();
    while ground.connect(&new).await.is_err() {
        if begun.elapsed() > KNOWN_WITHIN {
            return Err(Failure::check(format!("a rotated token is not let in within {KNOWN_WITHIN:?}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let known_after = begun.elapsed().as_millis();
    let (outcome, note) = accepted(ground, &old).await?;
    Ok((outcome, format!("{note}; the new one known after {known_after} ms")))
}

/// A device with a kept session moves to another branch: nothing of the old one arrives after, neither kept nor live.
async fn moved(ground: &mut Ground) -> Result<Played, Failure> {
    let (old, new) = (ground.topic("prod/m1/b1/product/updates"), ground.topic("prod/m1/b2/product/updates"));
    let login = ground.stage.persistent("devM");
    let mut client = ground.enter(&login).await?;
    subscribe(&mut client, &old).await?;
    client.disconnect().await;
    let kept = ground.mark();
    ground.publish(&old, &kept, false).await?;
    ground.stage.move_to_b2("devM").await?;
    let mut client = ground.enter(&login).await?;
    let live = ground.mark();
    ground.publish(&old, &live, false).await?;
    subscribe(&mut client, &new).await?;
    let seen = ground.everything(&mut client, &new).await?;
    client.disconnect().await;
    super::play::wipe(ground, "devM").await?;
    let of_old = seen.iter().filter(|seen| seen.payload == kept.as_bytes() || seen.payload == live.as_bytes()).count();
    Ok(if of_old > 0 {
        (Outcome::Allowed, format!("{of_old} of the old branch"))
    } else {
        (Outcome::Denied, "nothing of the old branch".into())
    })
}
