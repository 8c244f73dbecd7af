//! What a device or an address does too often is answered 429 with `Retry-After`; others, and right credentials, are not touched.
#![allow(clippy::unwrap_used)]

use crate::{
    bystander::{Scene, log_in},
    wire::{ATTACKER, HONEST, connect, http, login},
};

fn get(path: &str, bearer: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {bearer}")
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_limited_and_right_ones_pass() {
    let mut scene = Scene::open(&["--wrong-logins-rate", "30+1/min"]).await;
    let (web, mqtt, right) = (scene.http, scene.mqtt, format!("honest:{}", scene.token));
    let attack = async {
        let mut limited = 0;
        for n in 0..100 {
            let (status, said) = http(ATTACKER, web, &get("/v1/m1/b1/head", &format!("honest:mst_{n}")), b"").await.unwrap();
            assert!(status == 401 || status == 429, "{said}");
            if status == 429 {
                assert!(said.to_ascii_lowercase().contains("retry-after: ") && said.contains("rate_limited"), "{said}");
                limited += 1;
            }
            let mut stream = connect(ATTACKER, mqtt).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &login(b"honest", b"honest", b"mst_wrong")).await.unwrap();
        }
        limited
    };
    assert!((60..=70).contains(&scene.beside(attack).await), "30 at once, and one a minute");
    for from in [ATTACKER, HONEST] {
        let (status, said) = http(from, web, &get("/v1/m1/b1/head", &right), b"").await.unwrap();
        assert_eq!(status, 200, "nobody can lock a till out: {said}");
    }
    let late = scene.server.token("m1/b1", "late");
    log_in(ATTACKER, mqtt, "late", &late, "dev/m1/b1/product/updates").await;
    let (status, said) = http(HONEST, web, &get("/v1/m1/b1/head", "honest:mst_wrong"), b"").await.unwrap();
    assert_eq!(status, 401, "another address has an allowance of its own: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_snapshots_are_limited_per_device() {
    let scene = Scene::open(&["--uploads-rate", "3+1/min", "--snapshots-rate", "3+1/min"]).await;
    let other = format!("other:{}", scene.server.token("m1/b1", "other"));
    let web = scene.http;
    let snapshot = get("/v1/m1/b1/changes", &format!("honest:{}", scene.token));
    let upload =
        |bearer: &str| format!("POST /v1/m1/b1/operations HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {bearer}");
    let body = br#"{"journal_id":"j","clock_offset_ms":0,"operations":[]}"#;
    let ours = upload(&format!("honest:{}", scene.token));
    for n in 0..6 {
        let expected = if n < 3 { 200 } else { 429 };
        for (head, body) in [(&snapshot, &b""[..]), (&ours, body)] {
            let (status, said) = http(HONEST, web, head, body).await.unwrap();
            assert_eq!(status, expected, "{said}");
        }
    }
    let (_, said) = http(HONEST, web, &snapshot, b"").await.unwrap();
    let wait: u32 = said.to_ascii_lowercase().split("retry-after: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert!((30..=180).contains(&wait), "{wait} s at one a minute");
    assert_eq!(http(HONEST, web, &get("/v1/m1/b1/changes", &other), b"").await.unwrap().0, 200);
    assert_eq!(http(HONEST, web, &upload(&other), body).await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_address_counts_only_from_the_proxy() {
    const PROXY: [u8; 4] = [127, 0, 0, 9];
    let scene = Scene::open(&["--wrong-logins-rate", "2+1/min"]).await;
    let wrong = |client: &str| format!("{}\r\nX-Forwarded-For: {client}", get("/v1/m1/b1/head", "honest:mst_wrong"));
    let asked = async |from, client: &str| http(from, scene.http, &wrong(client), b"").await.unwrap().0;
    for client in ["198.51.100.1", "198.51.100.2"] {
        assert_eq!([asked(PROXY, client).await, asked(PROXY, client).await, asked(PROXY, client).await], [401, 401, 429]);
    }
    let strangers = ["203.0.113.1", "203.0.113.2", "203.0.113.3"];
    let answers = [asked(ATTACKER, strangers[0]).await, asked(ATTACKER, strangers[1]).await, asked(ATTACKER, strangers[2]).await];
    assert_eq!(answers, [401, 401, 429], "a stranger's word about its address does not count");
}
