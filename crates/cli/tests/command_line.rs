//! Names, exit codes and error messages that scripts rely on.
#![allow(clippy::unwrap_used)]

mod support;

use std::{net::TcpListener, process::Output};

use support::{Server, binary};

fn run(args: &[&str]) -> Output {
    binary().args(args).current_dir(std::env::temp_dir()).output().unwrap()
}

#[track_caller]
fn check(args: &[&str], exit: i32, says: &[&str]) {
    let output = run(args);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {text}");
    for part in says {
        assert!(text.contains(part), "{args:?} does not say {part:?}: {text}");
    }
}

#[test]
fn usage_errors_are_2_and_say_what_is_wrong() {
    check(&["dance"], 2, &["dance"]);
    check(&["serve", "--listen", "8080"], 2, &["listen", "127.0.0.1:8080"]);
    check(&["serve", "--env", "a/b"], 2, &["env"]);
    check(&["explain", "nonsense"], 2, &["snapshot_required"]);
    check(&["device", "add", "m1"], 2, &["merchant/branch"]);
    check(&["demo", "--data", "/nowhere.csv.gz"], 2, &["--data", "/nowhere.csv.gz"]);
    check(&["bench", "capture"], 2, &["--database postgres://"]);
}

#[test]
fn what_a_broker_needs_is_printed_and_only_some_can_be_changed_while_they_run() {
    check(&["broker", "setup", "mosquitto"], 0, &["set_tcp_nodelay true", "setDefaultACLAccess", "--broker-kind mosquitto"]);
    check(&["broker", "setup", "rabbitmq"], 0, &["auth_http.topic_path", "/hooks/rabbitmq/", "--hooks-listen 127.0.0.1:8090"]);
    check(&["broker", "setup", "emqx"], 0, &["no live EMQX", "no_match = deny", "/hooks/emqx/authn"]);
    check(&["broker", "setup", "nats"], 0, &["include \"users.conf\"", "# BEGIN mstore-sync", "CVE-2026-33215"]);
    let apply = ["--apply", "--admin-username", "admin", "--admin-password-file", "/nowhere"];
    check(&[&["broker", "setup", "nats"][..], &apply].concat(), 2, &["leave --apply out"]);
    check(&[&["broker", "setup", "mosquitto"][..], &apply].concat(), 2, &["/nowhere"]);
    check(&["serve", "--broker", "mqtt://127.0.0.1:1", "--broker-kind", "rabbitmq"], 2, &["hooks_listen", "broker setup rabbitmq"]);
}

#[test]
fn an_unknown_key_is_named_with_what_it_may_have_meant() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "mqtt_lisen = \"127.0.0.1:1\"\n").unwrap();
    check(&["serve", "--config", file.path().to_str().unwrap()], 2, &["mqtt_lisen", "did you mean \"mqtt_listen\"?"]);
}

#[test]
fn a_misspelt_variable_is_named_with_what_it_may_have_meant() {
    let with = |name: &str| binary().args(["serve", "--print-config"]).env(name, "127.0.0.1:1").output().unwrap();
    let misspelt = with("MSTORE_MQTT_LISTN");
    let said = String::from_utf8_lossy(&misspelt.stderr);
    assert_eq!(misspelt.status.code(), Some(2), "{said}");
    assert!(said.contains("MSTORE_MQTT_LISTN") && said.contains("did you mean MSTORE_MQTT_LISTEN?"), "{said}");
    let foreign = with("MSTORE_SERVICE_HOST");
    assert!(foreign.status.success(), "what Kubernetes sets stops nobody");
    assert!(String::from_utf8_lossy(&foreign.stderr).contains("MSTORE_SERVICE_HOST"));
}

#[test]
fn a_token_crosses_no_network_in_the_clear_unless_told_to() {
    let elsewhere = "http://192.0.2.1:8080";
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("till.db");
    let run = ["device", "run", "--server", elsewhere, "--claim", "0000-0000-0000", "--db", db.to_str().unwrap()];
    check(&run, 2, &[elsewhere, "insecure_url", "--profile development"]);
    check(&["device", "list", "--server", elsewhere, "--admin-token-file", "/dev/null"], 2, &[elsewhere, "insecure_url"]);
    check(&["device", "list", "--profile", "prod"], 2, &["development"]);
}

#[test]
fn what_is_needed_and_not_there_is_3() {
    check(
        &["device", "list", "--server", "http://127.0.0.1:9", "--admin-token-file", "/dev/null"],
        3,
        &["127.0.0.1:9", "mstore-sync serve"],
    );
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, free) = (taken.local_addr().unwrap().to_string(), "127.0.0.1:0");
    let data = dir.path().to_str().unwrap();
    check(&["serve", "--data-dir", data, "--listen", &addr, "--mqtt-listen", free, "--ws-listen", free], 3, &[&addr, "--listen"]);
    check(&["serve", "--data-dir", data, "--listen", free, "--mqtt-listen", &addr, "--ws-listen", free], 3, &[&addr]);
    check(&["serve", "--data-dir", data, "--listen", free, "--mqtt-listen", free, "--ws-listen", &addr], 3, &[&addr]);
    check(&["serve", "--data-dir", "/proc/nowhere"], 3, &["/proc/nowhere"]);
}

#[test]
fn a_data_directory_has_one_server() {
    let server = Server::start();
    let free = "127.0.0.1:0";
    let data = server.data_dir();
    check(
        &["serve", "--data-dir", data.to_str().unwrap(), "--listen", free, "--mqtt-listen", free, "--ws-listen", free],
        3,
        &["another server"],
    );
}

#[test]
fn ok_is_0() {
    check(&["--help"], 0, &["Exit codes"]);
    check(&["explain", "snapshot_required"], 0, &["410", "without `after`"]);
    check(&["serve", "--print-config"], 0, &["listen = \"127.0.0.1:8080\"", "(from default)"]);
}

#[test]
fn the_page_of_error_codes_is_the_table() {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Error codes\n\nEvery refusal carries one of these codes. A code never changes its meaning.\n\n| code | HTTP | retry | means | do |\n|---|---|---|---|---|\n",
    );
    for code in mstore_protocol::Code::ALL {
        let retry = if code.is_retryable() { "later" } else { "no" };
        writeln!(page, "| `{code}` | {} | {retry} | {} | {} |", code.http_status(), code.title(), code.next_step().replace('|', "\\|"))
            .unwrap();
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/error-codes.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page, "run this test with BLESS=1 after changing the table");
}
