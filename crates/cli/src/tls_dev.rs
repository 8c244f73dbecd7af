//! `tls dev`: an authority of one's own and a server certificate from it. For trying things out: who has `ca.key` can be any server to whom
//! trusts `ca.pem`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use mstore_protocol::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::{
    args::{TlsAction, TlsArgs, TlsDevArgs},
    failure::Failure,
    shop::now,
};

/// Every server's own.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const AUTHORITY: &str = "MStore Sync development authority";
const AUTHORITY_DAYS: u32 = 3_650;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Keys are nobody else's business; certificates are shown to everybody.
const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

#[allow(clippy::print_stdout)]
pub(crate) fn run(args: TlsArgs) -> Result<(), Failure> {
    let TlsAction::Dev(args) = args.action;
    let made = make(&args, now()).map_err(|why| Failure::unavailable(format!("{}: {why}", args.dir.display())))?;
    let file = |name: &str| args.dir.join(name).display().to_string();
    println!(
        "authority    {ca}   ({authority}; devices trust it with --ca)\n\
         certificate  {cert}   (for {hosts}; {days} days)\n\
         key          {key}\n\
         \nnext: mstore-sync serve --tls-cert {cert} --tls-key {key} --listen 127.0.0.1:8443\
         \n      mstore-sync trigger --server https://localhost:8443 --ca {ca} shop m1/b1",
        ca = file("ca.pem"),
        authority = if made.new_authority { "made now" } else { "kept" },
        cert = file("server.pem"),
        key = file("server.key"),
        hosts = made.hosts.join(", "),
        days = args.days,
    );
    Ok(())
}

struct Made {
    new_authority: bool,
    hosts: Vec<String>,
}

fn make(args: &TlsDevArgs, now: Timestamp) -> Result<Made, String> {
    let dir = &args.dir;
    let text = |error: io::Error| error.to_string();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(text)?;
    let held = dir.join("ca.key");
    let new_authority = !held.exists() || !dir.join("ca.pem").exists();
    let authority_key = if new_authority {
        KeyPair::generate().map_err(|error| error.to_string())?
    } else {
        let pem = fs::read_to_string(&held).map_err(text)?;
        KeyPair::from_pem(&pem).map_err(|error| format!("ca.key: {error}"))?
    };
    let authority = authority(now)?;
    if new_authority {
        let certificate = authority.self_signed(&authority_key).map_err(|error| error.to_string())?;
        write(&held, &authority_key.serialize_pem(), SECRET).map_err(text)?;
        write(&dir.join("ca.pem"), &certificate.pem(), PUBLIC).map_err(text)?;
    }
    let mut hosts: Vec<String> = HOSTS.map(str::to_owned).into();
    hosts.extend(args.names.iter().filter(|name| !HOSTS.contains(&name.as_str())).cloned());
    let issuer = Issuer::new(authority, authority_key);
    let (certificate, key) = server(&hosts, &issuer, now, args.days)?;
    // The key first: a server that reads between the two keeps what it has.
    write(&dir.join("server.key"), &key.serialize_pem(), SECRET).map_err(text)?;
    write(&dir.join("server.pem"), &certificate.pem(), PUBLIC).map_err(text)?;
    Ok(Made { new_authority, hosts })
}

fn authority(now: Timestamp) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| error.to_string())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named(AUTHORITY);
    valid(&mut params, now, AUTHORITY_DAYS)?;
    Ok(params)
}

fn server(hosts: &[String], issuer: &Issuer<'_, KeyPair>, now: Timestamp, days: u32) -> Result<(Certificate, KeyPair), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(|error| format!("--name: {error}"))?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = named("MStore Sync server");
    valid(&mut params, now, days)?;
    let certificate = params.signed_by(&key, issuer).map_err(|error| error.to_string())?;
    Ok((certificate, key))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday, because clocks differ, until `days` from now.
fn valid(params: &mut CertificateParams, now: Timestamp, days: u32) -> Result<(), String> {
    let date = |at: Timestamp| {
        let text = at.to_string();
        let mut parts = text.split(['-', 'T']).map(|part| part.parse::<u16>().ok());
        let mut part = || parts.next().flatten().ok_or("the clock shows no date that a certificate can have");
        let (year, month, day) = (part()?, part()?, part()?);
        let small = |part: u16| u8::try_from(part).unwrap_or(1);
        Ok::<_, &str>(date_time_ymd(i32::from(year), small(month), small(day)))
    };
    params.not_before = date(now.plus_ms(-DAY_MS))?;
    params.not_after = date(now.plus_ms((i64::from(days) + 1) * DAY_MS))?;
    Ok(())
}

/// Whole or not at all, and never readable by others in between.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    if beside.exists() {
        fs::remove_file(&beside)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_run_keeps_the_authority_and_keys_are_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let args = TlsDevArgs { dir: dir.path().join("tls"), names: vec!["till.example".into()], days: 30 };
        let read = |name: &str| fs::read_to_string(args.dir.join(name)).unwrap();
        let first = make(&args, now()).unwrap();
        let (ca, ca_key, server) = (read("ca.pem"), read("ca.key"), read("server.pem"));
        let second = make(&args, now()).unwrap();
        assert!(first.new_authority && !second.new_authority);
        assert_eq!((ca, ca_key), (read("ca.pem"), read("ca.key")));
        assert_ne!(server, read("server.pem"));
        assert_eq!(second.hosts, ["localhost", "127.0.0.1", "::1", "till.example"]);
        let mode = |name: &str| fs::metadata(args.dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("server.key"), mode("ca.pem")), (0o600, 0o600, 0o644));
        let wrong = TlsDevArgs { names: vec!["nö".into()], ..args };
        assert!(make(&wrong, now()).err().unwrap().contains("--name"));
    }
}
