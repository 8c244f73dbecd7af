//! A TLS client that says which certificate it was shown, and certificates as no command makes them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Connects to `scheme://127.0.0.1:port/…` and believes the authorities of a file.
pub(crate) fn connect(url: &str, ca: &Path) -> StreamOwned<ClientConnection, TcpStream> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let authority = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(authority).unwrap();
    connection.complete_io(&mut socket).unwrap();
    StreamOwned::new(connection, socket)
}

/// The certificate that is shown at a URL.
pub(crate) fn shown(url: &str, ca: &Path) -> Vec<u8> {
    connect(url, ca).conn.peer_certificates().unwrap()[0].to_vec()
}

/// GET over TLS; the whole answer.
pub(crate) fn get(url: &str, path: &str, ca: &Path) -> String {
    let mut stream = connect(url, ca);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // Whoever closes without a word of TLS has said everything all the same: the length is in the head.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// An authority and a server's certificate, in files.
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate for `host` that ends with that year.
pub(crate) fn make(dir: &Path, host: &str, last_year: i32) -> Files {
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = file("ca.pem", authority.self_signed(&authority_key).unwrap().pem());
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_after = date_time_ymd(last_year, 12, 31);
    let cert = file("server.pem", params.signed_by(&key, &issuer).unwrap().pem());
    Files { ca, cert, key: file("server.key", key.serialize_pem()) }
}
