//! Who does not prove to be the server gets no claim code, and the till says why with a code.
#![allow(clippy::unwrap_used)]

use crate::{
    handshake::make,
    support::{Server, binary},
};

/// What `device run` says of a server with this certificate.
fn said(host: &str, last_year: i32, believes: impl Fn(&std::path::Path) -> std::path::PathBuf) -> String {
    let dir = tempfile::tempdir().unwrap();
    let files = make(dir.path(), host, last_year);
    let server = Server::start_with(&["--tls-cert", files.cert.to_str().unwrap(), "--tls-key", files.key.to_str().unwrap()]);
    let output = binary()
        .args(["device", "run", "--server", server.http(), "--claim", "ABCD-EFGH-JKMN", "--db"])
        .arg(dir.path().join("till.db"))
        .arg("--ca")
        .arg(believes(&files.ca))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_is_wrong_with_a_certificate_has_a_code() {
    let expired = said("127.0.0.1", 2001, std::path::Path::to_owned);
    assert!(expired.contains("certificate_expired") && expired.contains("clock"), "{expired}");
    let elsewhere = said("elsewhere.example", 4000, std::path::Path::to_owned);
    assert!(elsewhere.contains("certificate_name"), "{elsewhere}");
    let other = tempfile::tempdir().unwrap();
    let stranger = make(other.path(), "127.0.0.1", 4000);
    let untrusted = said("127.0.0.1", 4000, |_| stranger.ca.clone());
    assert!(untrusted.contains("certificate_untrusted") && untrusted.contains("--ca"), "{untrusted}");
    // The same server, believed: then it is the claim code that is wrong.
    let refused = said("127.0.0.1", 4000, std::path::Path::to_owned);
    assert!(refused.contains("claim code") && !refused.contains("certificate"), "{refused}");
}

#[test]
fn other_machines_are_not_listened_to_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    for listener in ["--listen", "--mqtt-listen", "--ws-listen"] {
        let output = binary().args(["serve", listener, "0.0.0.0:0", "--data-dir"]).arg(dir.path().join("shop")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(["insecure_listener", "0.0.0.0:0", "tls_proxy", "development"].iter().all(|part| said.contains(part)), "{said}");
    }
    assert!(!dir.path().join("shop").exists(), "nothing was made");
}
