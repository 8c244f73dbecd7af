//! The rig itself: what tests rest on is true of real servers.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use mstore_rig::{Mosquitto, Options, Postgres, Program, have, psql, try_psql};

const OWNED: &str = "MSTORE_RIG_TEST_OWNED";

#[test]
fn each_database_is_its_own_and_its_owner_is_nobody_special() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let (one, two) = (Postgres::shared().database("one"), Postgres::shared().database("one"));
    one.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
    assert_eq!(one.psql("SELECT a, a + 1 FROM t ORDER BY a"), "1|2\n2|3");
    assert!(try_psql(&two.url(), "SELECT * FROM t").unwrap_err().contains("does not exist"));
    assert_eq!(one.psql("SELECT rolsuper, rolreplication, rolcreaterole FROM pg_roles WHERE rolname = current_user"), "f|f|f");
    assert_eq!(psql(&one.superuser_url(), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"), "t");
    assert!(try_psql(&Postgres::shared().url_as("shop", "wrong", one.name()), "SELECT 1").unwrap_err().contains("password"));
}

#[test]
fn a_killed_server_comes_back_with_its_commits() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut postgres = Postgres::start();
    let url = postgres.url("postgres");
    psql(&postgres.superuser_url("postgres"), "GRANT CREATE ON SCHEMA public TO shop");
    psql(&url, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    postgres.kill_9();
    assert!(try_psql(&url, "SELECT 1").is_err());
    postgres.start_again();
    assert_eq!(psql(&url, "SELECT a FROM t"), "1");
    postgres.restart();
    assert_eq!(psql(&url, "SELECT a FROM t"), "1");
    assert!(postgres.log().contains("was not properly shut down"), "{}", postgres.log());
}

#[test]
fn a_paused_server_does_not_answer_until_it_goes_on() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    postgres.pause();
    let refused = try_psql(&format!("{url}?connect_timeout=2"), "SELECT 1").unwrap_err();
    assert!(refused.contains("timeout"), "{refused}");
    postgres.resume();
    assert_eq!(psql(&url, "SELECT 1"), "1");
}

#[test]
fn a_replica_follows_and_takes_over() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let mut primary = Postgres::start();
    let shop = primary.database("shop").keep();
    psql(&primary.url(&shop), "CREATE TABLE t (a int)");
    let replica = primary.replica();
    primary.set("synchronous_standby_names", "*");
    psql(&primary.url(&shop), "SET synchronous_commit = remote_apply; INSERT INTO t VALUES (7)");
    assert_eq!(psql(&replica.url(&shop), "SELECT a FROM t"), "7");
    assert!(try_psql(&replica.url(&shop), "INSERT INTO t VALUES (8)").unwrap_err().contains("read-only"));
    primary.kill_9();
    replica.promote();
    let failover = primary.failover_url(&replica, &shop);
    assert_eq!(psql(&failover, "INSERT INTO t VALUES (8); SELECT count(*) FROM t"), "2");
}

#[test]
fn tls_is_verified_against_the_authority() {
    if !have(&[Program::Postgres]) {
        return;
    }
    let postgres = Postgres::start_with(&Options::default().tls().setting("work_mem", "5MB"));
    let authority = postgres.authority();
    let url = postgres.url("postgres").replace("127.0.0.1", "localhost");
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display());
    assert_eq!(psql(&verified, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid(); SHOW work_mem"), "t\n5MB");
    let other = Postgres::start_with(&Options::default().tls());
    let stranger = format!("{url}?sslmode=verify-full&sslrootcert={}", other.authority().display());
    assert!(try_psql(&stranger, "SELECT 1").unwrap_err().contains("certificate verify failed"));
}

#[test]
fn a_broker_is_killed_and_comes_back() {
    if !have(&[Program::Mosquitto]) {
        return;
    }
    let mut mosquitto = Mosquitto::start("");
    assert!(TcpStream::connect(mosquitto.addr()).is_ok());
    mosquitto.kill();
    assert!(TcpStream::connect(mosquitto.addr()).is_err());
    mosquitto.restart();
    assert!(TcpStream::connect(mosquitto.addr()).is_ok());
}

#[test]
fn a_server_does_not_outlive_a_killed_test() {
    if !have(&[Program::Postgres]) {
        return;
    }
    if std::env::var_os(OWNED).is_some() {
        return own_a_server_until_killed();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_server_does_not_outlive_a_killed_test", "--nocapture"]).env(OWNED, "1");
    let mut test = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("owned ").map(str::to_owned)).unwrap();
    let (process, directory) = line.split_once(' ').unwrap();
    assert!(Path::new(&format!("/proc/{process}")).exists() && Path::new(directory).exists());
    test.kill().unwrap();
    test.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Path::new(directory).exists() {
        assert!(Instant::now() < deadline, "the server or its files are still there");
        std::thread::yield_now();
    }
    assert!(!std::fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| line.contains(directory)), "the server runs");
}

/// What that test starts of itself, and kills.
fn own_a_server_until_killed() {
    let postgres = Postgres::start();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nowned {} {}", postgres.process_id(), postgres.socket_directory().display()).unwrap();
    out.flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
