//! Crowds: connections that are only opened, and ten thousand reconnects.
#![allow(clippy::unwrap_used)]

use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    bystander::{Scene, log_in},
    wire::{ATTACKER, DEADLINE, closed, connect, login, next},
};

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_of_one_address_are_bounded_and_end_without_a_login() {
    let limits = ["--connections-per-address-max", "50", "--login-timeout-s", "2", "--request-timeout-s", "2"];
    let mut scene = Scene::open(&limits).await;
    let targets = [scene.http, scene.mqtt];
    let attack = async {
        let mut turned_away = 0;
        for to in targets {
            let mut opened = Vec::new();
            for _ in 0..200 {
                opened.push(connect(ATTACKER, to).await.unwrap());
            }
            // Those over the bound at once, the others when their time is up.
            let begun = Instant::now();
            let mut ends = JoinSet::new();
            for mut stream in opened {
                ends.spawn(async move { (closed(&mut stream).await, begun.elapsed()) });
            }
            while let Some(end) = ends.join_next().await {
                turned_away += usize::from(end.unwrap().1.as_secs_f64() < 1.0);
            }
        }
        turned_away
    };
    let turned_away = scene.beside(attack).await;
    assert!(turned_away >= 200, "{turned_away} of 400 were turned away at once");
    // The till whose address it is not has noticed nothing, and those who left may come again.
    connect(ATTACKER, scene.mqtt).await.unwrap().write_all(&login(b"x", b"x", b"x")).await.unwrap();
    let token = scene.server.token("m1/b1", "late");
    log_in(ATTACKER, scene.mqtt, "late", &token, "dev/m1/b1/product/updates").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_reconnects_leave_nothing_behind() {
    const TILLS: usize = 50;
    const RECONNECTS: usize = 10_000;
    /// CONNACK: accepted, and "server unavailable" (MQTT 3.1.1 §3.2.2.3).
    const WELCOME: [u8; 2] = [0, 0];
    const UNAVAILABLE: [u8; 2] = [0, 3];
    let mut scene = Scene::open(&[]).await;
    let tokens: Vec<String> = (0..TILLS).map(|n| scene.server.token("m1/b1", &format!("till-{n}"))).collect();
    let mqtt = scene.mqtt;
    let names: Vec<String> = (0..TILLS).map(|n| format!("till-{n}")).collect();
    let attack = async {
        let mut tills = JoinSet::new();
        for (name, token) in names.clone().into_iter().zip(tokens.clone()) {
            tills.spawn(async move {
                let hello = login(name.as_bytes(), name.as_bytes(), token.as_bytes());
                let mut welcomed = 0;
                for _ in 0..RECONNECTS / TILLS {
                    let mut stream = connect(ATTACKER, mqtt).await.unwrap();
                    stream.write_all(&hello).await.unwrap();
                    let answer = timeout(DEADLINE, next(&mut stream)).await.expect("a login is answered, or the connection closed");
                    let (_, said) = answer.unwrap_or((0x20, UNAVAILABLE.to_vec()));
                    assert!(said == WELCOME || said == UNAVAILABLE, "{said:?}");
                    welcomed += usize::from(said == WELCOME);
                }
                welcomed
            });
        }
        tills.join_all().await.into_iter().sum::<usize>()
    };
    let welcomed = scene.beside(attack).await;
    // A few come while the session that they left a moment ago is being ended; they are told to come again.
    assert!(welcomed > RECONNECTS * 95 / 100, "{welcomed} of {RECONNECTS}");
    for (name, token) in names.iter().zip(&tokens) {
        log_in(ATTACKER, mqtt, name, token, "dev/m1/b1/product/updates").await;
    }
}
