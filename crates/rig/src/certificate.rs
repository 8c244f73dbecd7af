//! A certificate for `localhost` and the authority that signed it, by the `openssl` that Debian's PostgreSQL brings along.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const AUTHORITY: &str = "authority.crt";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
CN = localhost
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// Makes both in `directory`; `give` hands a file to the server's account.
pub(crate) fn make(directory: &Path, give: impl Fn(&Path)) {
    fs::write(directory.join("openssl.conf"), CONFIG).expect("the directory is ours");
    let new =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-config", "openssl.conf"];
    openssl(
        directory,
        &[&new[..], &["-extensions", "authority", "-subj", "/CN=test authority", "-keyout", "authority.key", "-out", AUTHORITY]].concat(),
    );
    let signed = ["-CA", AUTHORITY, "-CAkey", "authority.key", "-extensions", "server", "-keyout", KEY, "-out", CERTIFICATE];
    openssl(directory, &[&new[..], &signed].concat());
    protect(directory, give);
}

/// The same ones for a replica: whoever trusts one trusts the other.
pub(crate) fn share(from: &Path, to: &Path, give: impl Fn(&Path)) {
    for file in [AUTHORITY, CERTIFICATE, KEY] {
        fs::copy(from.join(file), to.join(file)).expect("both directories are ours");
    }
    protect(to, give);
}

pub(crate) fn authority(directory: &Path) -> PathBuf {
    directory.join(AUTHORITY)
}

/// The certificate, which is good for either end of a connection.
pub(crate) fn certificate(directory: &Path) -> PathBuf {
    directory.join(CERTIFICATE)
}

pub(crate) fn key(directory: &Path) -> PathBuf {
    directory.join(KEY)
}

pub(crate) fn settings(directory: &Path) -> [(String, String); 3] {
    let file = |name: &str| directory.join(name).display().to_string();
    [("ssl".into(), "on".into()), ("ssl_cert_file".into(), file(CERTIFICATE)), ("ssl_key_file".into(), file(KEY))]
}

/// A key that others may read is refused by the server.
fn protect(directory: &Path, give: impl Fn(&Path)) {
    let key = directory.join(KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the key is ours");
    give(&key);
    give(&directory.join(CERTIFICATE));
}

fn openssl(directory: &Path, args: &[&str]) {
    let output =
        Command::new("openssl").args(args).current_dir(directory).output().expect("openssl comes with Debian's package postgresql");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}
