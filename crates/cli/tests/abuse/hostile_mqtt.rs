//! Hostile client ids, topics and packets: refused or hung up on, and nobody else hears of it.
#![allow(clippy::unwrap_used)]

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    bystander::{Scene, log_in},
    wire::{ATTACKER, DEADLINE, closed, connect, login, next, packet, subscribe},
};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_get_nothing() {
    let mut scene = Scene::open(&["--login-timeout-s", "2"]).await;
    let own = scene.server.token("m1/b1", "attacker");
    let mqtt = scene.mqtt;
    let attack = async {
        let long = vec![b'a'; 65_535];
        let ids: [&[u8]; 9] = [b"", b"honest", b"Attacker", b"attacker\0", b"../honest", b"#", b"$SYS/x", b"\xed\xa0\x80", &long];
        for id in ids {
            let mut stream = connect(ATTACKER, mqtt).await.unwrap();
            let _ = stream.write_all(&login(id, b"attacker", own.as_bytes())).await;
            let mut answer = Vec::new();
            let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes it");
            assert!(answer.len() < 4 || answer[3] != 0, "{} was let in", String::from_utf8_lossy(id));
        }
        let deep = "/".repeat(30_000);
        let filters: [&str; 8] = [
            "#",
            "$SYS/#",
            "dev/#",
            "dev/m1/b2/product/updates",
            "$share/g/dev/m1/b1/product/updates",
            "+/+/+/+/+",
            &deep,
            "dev/m1/b1/PRODUCT/updates",
        ];
        for filter in filters {
            let mut stream = log_in(ATTACKER, mqtt, "attacker", &own, "dev/m1/b1/product/updates").await;
            let _ = stream.write_all(&subscribe(filter.as_bytes())).await;
            let answered = async {
                loop {
                    match next(&mut stream).await {
                        // The till's own branch goes on.
                        Ok((kind, _)) if kind >> 4 == 3 => {}
                        Ok((kind, rest)) => return Some((kind, rest)),
                        Err(_closed) => return None,
                    }
                }
            };
            let answer = timeout(DEADLINE, answered).await.expect("refused or closed");
            let is_refused = answer.as_ref().is_none_or(|(kind, rest)| *kind == 0x90 && rest[2] == 0x80);
            assert!(is_refused, "{} was granted: {answer:?}", &filter[..filter.len().min(40)]);
        }
        // A packet of 256 MB that never comes, one of a kind that there is not, and a publish.
        let publish = packet(0x30, b"\0\x19dev/m1/b1/product/updatesx");
        for bytes in [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &[0xf0, 0], &[0, 0], &[0x30, 0xff, 0xff, 0xff, 0xff, 0xff], &publish] {
            let mut stream = log_in(ATTACKER, mqtt, "attacker", &own, "dev/m1/b1/product/updates").await;
            let _ = stream.write_all(bytes).await;
            closed(&mut stream).await;
        }
    };
    scene.beside(attack).await;
}
