//! Which crate may know which: the workspace's layers, checked against the manifests.
//!
//! Test dependencies are free, except on the simulator: they are not shipped and no crate inherits them.

use std::collections::BTreeSet;

use super::project::{Dependency, Finding, Package, Project};

/// All that a crate may depend on.
struct AllowList {
    package: &'static str,
    always: &'static [&'static str],
    /// Only behind a feature.
    optional: &'static [&'static str],
    why: &'static str,
}

const ALLOW_LISTS: &[AllowList] = &[
    AllowList {
        package: "mstore-protocol",
        always: &["serde", "serde_json", "sha2", "thiserror", "jiff", "uuid"],
        optional: &["utoipa"],
        why: "every client in every language carries the wire contract, so it must stay small and build anywhere",
    },
    AllowList {
        package: "mstore-engine",
        always: &["mstore-protocol", "serde", "serde_json", "thiserror"],
        optional: &[],
        why: "the same decisions run on a phone, in bindings and in the simulator",
    },
];

/// The crates that may know a library.
struct Owners {
    /// A name, or the beginning of one with `*`.
    library: &'static str,
    packages: &'static [&'static str],
    why: &'static str,
}

const STORAGE: &[&str] = &["mstore-store", "mstore-client", "mstore-sync", "mstore-sim"];
const HTTP_CLIENTS: &[&str] = &["mstore-client", "mstore-sync", "mstore-server", "mstore-broker"];
const MQTT_CLIENTS: &[&str] = &["mstore-broker", "mstore-client", "mstore-sync"];
/// The fuzz targets take the program's configuration in by path, and its arguments with it.
const COMMAND_LINES: &[&str] = &["mstore-sync", "xtask", "mstore-fuzz"];
const TERMINAL: &[&str] = &["mstore-sync"];

const OWNERS: &[Owners] = &[
    Owners { library: "rusqlite", packages: STORAGE, why: "SQL stays behind the Store trait and the device's own database" },
    Owners { library: "rusqlite_migration", packages: STORAGE, why: "a schema has one owner" },
    Owners {
        library: "tokio-postgres",
        packages: &["mstore-store", "mstore-sync"],
        why: "SQL stays behind the Store trait; benchmarks write past it, as foreign programs do",
    },
    Owners { library: "deadpool*", packages: &["mstore-store"], why: "connections belong to the store" },
    Owners { library: "rmqtt*", packages: &["mstore-broker"], why: "the embedded broker is young: one crate to change with it" },
    Owners { library: "rumqttc*", packages: MQTT_CLIENTS, why: "publishing and subscribing have one place each" },
    Owners { library: "axum*", packages: &["mstore-server"], why: "HTTP is the server's edge" },
    Owners { library: "utoipa*", packages: &["mstore-server", "mstore-protocol"], why: "OpenAPI is described where HTTP is served" },
    Owners {
        library: "reqwest",
        packages: HTTP_CLIENTS,
        why: "a device, the command line, the webhook to a merchant's backend and the way to a broker's management call over HTTP",
    },
    Owners { library: "clap*", packages: COMMAND_LINES, why: "libraries take arguments, not command lines" },
    Owners { library: "indicatif", packages: TERMINAL, why: "the engine reports, the command line draws" },
    Owners { library: "crossterm", packages: TERMINAL, why: "the engine reports, the command line draws" },
    Owners { library: "uniffi*", packages: &["mstore-ffi"], why: "bindings hold no logic, and logic no bindings" },
];

const CLIENT: &str = "mstore-client";
const SERVER: &str = "mstore-server";
const SEES_BOTH_SIDES: &[&str] = &["mstore-sync", "mstore-sim"];
const SIMULATOR: &str = "mstore-sim";
/// Starts real servers for tests.
const RIG: &str = "mstore-rig";

/// The provider that must not be switched on by us. It is in the tree all the same: the embedded broker's network crate
/// brings QUIC, which names it. As long as nobody enables it in rustls on our behalf, aws-lc-rs is the only one installed.
const SECOND_PROVIDER: &str = "ring";

/// Dependencies of the crates with a closed list that are not on it.
pub(super) fn outside_list(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, dependency) in shipped(project) {
        let Some(list) = ALLOW_LISTS.iter().find(|list| list.package == package.name) else { continue };
        let name = dependency.name.as_str();
        let is_allowed = list.always.contains(&name) || (list.optional.contains(&name) && dependency.optional);
        if !is_allowed {
            findings.push(finding(package, format!("depends on {name}: {}", list.why)));
        }
    }
    findings
}

/// Libraries in crates that must not know them.
pub(super) fn library_elsewhere(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, dependency) in shipped(project) {
        for owners in OWNERS.iter().filter(|owners| matches(owners.library, &dependency.name)) {
            if !owners.packages.contains(&package.name.as_str()) {
                let allowed = owners.packages.join(", ");
                let what = format!("depends on {}, known only to {allowed}: {}", dependency.name, owners.why);
                findings.push(finding(package, what));
            }
        }
    }
    findings
}

/// Crates that reach both the client and the server, on whatever way, and are not meant to.
pub(super) fn sides_see_each_other(project: &Project) -> Vec<Finding> {
    let unexpected = |package: &&Package| !SEES_BOTH_SIDES.contains(&package.name.as_str());
    let sees_both = |package: &&Package| {
        let reached = reached_from(project, &package.name);
        reached.contains(CLIENT) && reached.contains(SERVER)
    };
    let packages = project.packages.iter().filter(unexpected).filter(sees_both);
    packages.map(|package| finding(package, format!("reaches both {CLIENT} and {SERVER}"))).collect()
}

/// Crates that depend on the simulator, be it for their tests.
pub(super) fn depends_on_simulator(project: &Project) -> Vec<Finding> {
    // Its own tests may: that is how they switch its features on.
    let others = |package: &&Package| package.name != SIMULATOR;
    let on_simulator = |package: &&Package| package.dependencies.iter().any(|dependency| dependency.name == SIMULATOR);
    let packages = project.packages.iter().filter(others).filter(on_simulator);
    packages.map(|package| finding(package, format!("depends on {SIMULATOR}: put the test there"))).collect()
}

/// Crates that need the tests' servers outside their tests, and crates of ours that the rig knows.
pub(super) fn rig_outside_tests(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, dependency) in shipped(project) {
        if dependency.name == RIG {
            findings.push(finding(package, format!("depends on {RIG} outside its tests")));
        }
        if package.name == RIG && dependency.name.starts_with("mstore-") {
            findings.push(finding(package, format!("depends on {}: it starts servers of others", dependency.name)));
        }
    }
    findings
}

/// Manifests that name the second TLS provider or switch it on in another library, tests included.
pub(super) fn second_tls_provider(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &project.packages {
        for dependency in &package.dependencies {
            if dependency.name == SECOND_PROVIDER {
                findings.push(finding(package, format!("depends on {SECOND_PROVIDER}; ours is aws-lc-rs")));
            }
            for feature in dependency.features.iter().filter(|feature| names_second_provider(feature)) {
                findings.push(finding(package, format!("enables {feature} in {}; ours is aws-lc-rs", dependency.name)));
            }
        }
    }
    findings
}

/// `ring`, `rustls-ring`, `use-rustls-ring`, but not `tracing` or `string`.
fn names_second_provider(feature: &str) -> bool {
    feature.split(['-', '_', '/', ':', '?']).any(|part| part == SECOND_PROVIDER)
}

/// What each crate depends on outside its tests.
fn shipped(project: &Project) -> impl Iterator<Item = (&Package, &Dependency)> {
    let pairs = project.packages.iter().flat_map(|package| package.dependencies.iter().map(move |of| (package, of)));
    pairs.filter(|(_package, dependency)| !dependency.is_for_tests())
}

/// A crate of the workspace and all crates of the workspace that it depends on, directly or not.
fn reached_from<'a>(project: &'a Project, start: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::from([start]);
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        for (package, dependency) in shipped(project) {
            if package.name == name && reached.insert(&dependency.name) {
                open.push(&dependency.name);
            }
        }
    }
    reached
}

fn matches(library: &str, name: &str) -> bool {
    library.strip_suffix('*').map_or(library == name, |beginning| name.starts_with(beginning))
}

fn finding(package: &Package, what: String) -> Finding {
    Finding::whole(&package.name, what)
}

#[cfg(test)]
mod tests {
    use super::super::project::examples::{crates, lines};
    use super::*;

    #[test]
    fn a_closed_list_is_closed() {
        let good = ["mstore-protocol: serde opt:utoipa dev:proptest", "mstore-engine: mstore-protocol serde_json"];
        assert!(outside_list(&crates(&good)).is_empty());
        for bad in ["mstore-protocol: tokio", "mstore-protocol: utoipa", "mstore-engine: jiff", "mstore-engine: opt:rand"] {
            assert_eq!(outside_list(&crates(&[bad])).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_library_has_its_crates() {
        let good = [
            "mstore-store: rusqlite rusqlite_migration",
            "mstore-broker: rmqtt rumqttc-v4-next reqwest",
            "mstore-server: axum utoipa-axum reqwest dev:rusqlite",
            "xtask: clap",
        ];
        assert!(library_elsewhere(&crates(&good)).is_empty());
        for bad in [
            "mstore-server: rusqlite",
            "mstore-server: rmqtt",
            "mstore-store: rumqttc-v5-next",
            "mstore-client: axum-core",
            "mstore-store: utoipa",
            "mstore-store: reqwest",
            "mstore-client: indicatif",
            "mstore-server: clap",
        ] {
            assert_eq!(library_elsewhere(&crates(&[bad])).len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_two_sides_meet_only_on_top() {
        let good = [
            "mstore-client: mstore-engine",
            "mstore-server: mstore-store dev:mstore-client",
            "mstore-sync: mstore-client mstore-server",
            "mstore-sim: mstore-client mstore-server",
        ];
        assert!(sides_see_each_other(&crates(&good)).is_empty());
        let found = sides_see_each_other(&crates(&["mstore-server: mstore-store", "mstore-store: mstore-client"]));
        assert_eq!(lines(&found), ["mstore-server: reaches both mstore-client and mstore-server"]);
        assert_eq!(sides_see_each_other(&crates(&["mstore-client: mstore-server"])).len(), 1);
        assert_eq!(sides_see_each_other(&crates(&["mstore-other: mstore-client mstore-server"])).len(), 1);
    }

    #[test]
    fn nothing_rests_on_the_simulator() {
        assert!(depends_on_simulator(&crates(&["mstore-sim: mstore-engine"])).is_empty());
        assert_eq!(depends_on_simulator(&crates(&["mstore-sync: mstore-sim", "xtask: dev:mstore-sim"])).len(), 2);
    }

    #[test]
    fn the_rig_is_for_tests() {
        assert!(rig_outside_tests(&crates(&["mstore-store: dev:mstore-rig", "mstore-rig: tempfile"])).is_empty());
        assert_eq!(rig_outside_tests(&crates(&["mstore-sync: mstore-rig", "mstore-rig: mstore-protocol"])).len(), 2);
    }

    #[test]
    fn one_provider_is_enabled() {
        let good = ["mstore-client: rustls+std+tls12 tracing+tracing+string uuid+aws-lc-rs"];
        assert!(second_tls_provider(&crates(&good)).is_empty());
        for bad in ["a: ring", "a: rustls+ring", "a: rumqttc-v4-next+use-rustls-ring", "a: dev:rcgen+ring"] {
            assert_eq!(second_tls_provider(&crates(&[bad])).len(), 1, "{bad}");
        }
    }
}
