//! Bodies that are too large, too deep, or larger than they look.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use crate::{
    bystander::Scene,
    wire::{ATTACKER, http},
};

const ENROL: &str = "POST /v1/devices/enrol HTTP/1.1\r\nContent-Type: application/json";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_cost_no_more_than_their_limit() {
    let mut scene = Scene::open(&[]).await;
    let (web, token) = (scene.http, scene.token.clone());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&vec![b' '; 256 * 1024 * 1024]).unwrap();
    let bomb = gzip.finish().unwrap();
    let upload = format!("POST /v1/m1/b1/operations HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer honest:{token}");
    let deep = format!("{{\"code\":{}", "[".repeat(1_000_000)).into_bytes();
    let objects = "{\"code\":".repeat(100_000).into_bytes();
    let long = vec![b' '; 9 * 1024 * 1024];
    let attack = async {
        for _ in 0..10 {
            for head in [ENROL, &upload] {
                let zipped = format!("{head}\r\nContent-Encoding: gzip");
                for (head, body, expected) in [(head, &long, 413), (&*zipped, &bomb, 413), (head, &deep, 400), (head, &objects, 400)] {
                    let (status, said) = http(ATTACKER, web, head, body).await.expect("an answer, not a broken connection");
                    assert_eq!(status, expected, "{said}");
                    assert!(said.len() < 4_096, "{} bytes of answer", said.len());
                }
            }
        }
    };
    scene.beside(attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_bounded_too() {
    let mut scene = Scene::open(&[]).await;
    let web = scene.http;
    let attack = async {
        for _ in 0..20 {
            let long = format!("GET /{} HTTP/1.1", "a".repeat(1024 * 1024));
            let many = format!("GET /healthz HTTP/1.1\r\n{}X: y", "X: y\r\n".repeat(10_000));
            let forwarded = format!("GET /healthz HTTP/1.1\r\nX-Forwarded-For: {}", "1.1.1.1,".repeat(100_000));
            for head in [long, many, forwarded] {
                if let Some((status, said)) = http(ATTACKER, web, &head, b"").await {
                    assert!((400..500).contains(&status), "{said}");
                }
            }
        }
    };
    scene.beside(attack).await;
}
