//! Slow senders and slow readers: half a request, half a login, a body that does not come, an answer that nobody reads.
#![allow(clippy::unwrap_used)]

use tokio::{io::AsyncWriteExt as _, task::JoinSet};

use crate::{
    bystander::{Scene, log_in},
    wire::{ATTACKER, closed, connect, login},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_to_an_end_is_cut_off_and_takes_nobodys_place() {
    let limits = ["--request-timeout-s", "2", "--login-timeout-s", "2", "--requests-max", "64", "--requests-per-address-max", "32"];
    let mut scene = Scene::open(&limits).await;
    let (web, mqtt) = (scene.http, scene.mqtt);
    let hello = login(b"x", b"x", b"x");
    let beginnings = [
        (web, b"GET /healthz HT".to_vec()),
        (web, b"POST /v1/devices/enrol HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\n{".to_vec()),
        (mqtt, hello[..1].to_vec()),
        (mqtt, hello[..hello.len() - 1].to_vec()),
    ];
    let attack = async {
        let mut ends = JoinSet::new();
        for _ in 0..50 {
            for (to, beginning) in beginnings.clone() {
                ends.spawn(async move {
                    let mut stream = connect(ATTACKER, to).await.unwrap();
                    // The server may have refused it before it was said.
                    let _ = stream.write_all(&beginning).await;
                    closed(&mut stream).await
                });
            }
        }
        ends.join_all().await.len()
    };
    assert_eq!(scene.beside(attack).await, 200, "every one was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_cost_little() {
    let mut scene = Scene::open(&[]).await;
    scene.server.admin(&["trigger", "shop", "m1/b2", "--products", "5000"]);
    let reader = scene.server.token("m1/b2", "reader");
    let stuck = scene.server.token("m1/b1", "stuck");
    let (web, mqtt) = (scene.http, scene.mqtt);
    let attack = async {
        let mut readers = Vec::new();
        for _ in 0..40 {
            let mut stream = connect(ATTACKER, web).await.unwrap();
            let ask = format!("GET /v1/m1/b2/changes HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer reader:{reader}\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.unwrap();
            readers.push(stream);
        }
        (readers, log_in(ATTACKER, mqtt, "stuck", &stuck, "dev/m1/b1/product/updates").await)
    };
    let _stuck = scene.beside(attack).await;
}
