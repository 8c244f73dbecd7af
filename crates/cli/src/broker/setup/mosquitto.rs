//! Mosquitto with its dynamic-security plugin: a configuration, and three accounts of the server's own.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mstore_broker::{DynsecAccounts, DynsecSetup, ExternalConfig, Login, TlsFiles};
use mstore_protocol::Env;

use crate::{args::SetupArgs, broker_accounts::account_keeper, broker_config::read_secret, failure::Failure};

/// What makes a Mosquitto 2.0 fit for this; `set_tcp_nodelay` because its default holds every message back for some 27 ms.
const CONFIGURATION: &str = "\
per_listener_settings false
listener 8883
cafile /etc/mosquitto/certs/ca.crt
certfile /etc/mosquitto/certs/server.crt
keyfile /etc/mosquitto/certs/server.key
allow_anonymous false
plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so
plugin_opt_config_file /var/lib/mosquitto/dynamic-security.json
set_tcp_nodelay true
persistence true
persistence_location /var/lib/mosquitto/
persistent_client_expiration 7d
max_packet_size 268435
max_inflight_messages 20
max_queued_messages 10000
";

#[allow(clippy::print_stdout)]
pub(super) async fn run(args: SetupArgs) -> Result<(), Failure> {
    let env = Env::parse(&args.env).map_err(|why| Failure::usage(format!("--env: {why}")))?;
    let names = DynsecAccounts::of(&env);
    if args.apply {
        apply(&args, &env).await?;
        println!("made: {}, {}, {} and their roles; what no role allows is refused", names.backend, names.canary, names.accounts);
        println!("\n{}", serve(&args, &names));
        return Ok(());
    }
    println!("# 1. mosquitto.conf\n{CONFIGURATION}");
    println!("# 2. once, before the first start: the plugin's administrator");
    println!("mosquitto_ctrl dynsec init /var/lib/mosquitto/dynamic-security.json admin");
    println!(
        "\n# 3. with --apply --admin-username admin --admin-password-file FILE, these commands go to the plugin, with passwords made then:"
    );
    for command in DynsecSetup::plan(&env) {
        println!("{command}");
    }
    println!("\n# 4. {}", serve(&args, &names));
    Ok(())
}

async fn apply(args: &SetupArgs, env: &Env) -> Result<(), Failure> {
    let url = args.url.parse().map_err(|why| Failure::usage(format!("--url: {why}")))?;
    let mut way = ExternalConfig::new(url, env.clone());
    way.tls = TlsFiles::read(args.broker_ca.as_deref(), None).map_err(|error| Failure::usage(format!("--broker-ca: {error}")))?;
    let (Some(username), Some(file)) = (&args.admin_username, &args.admin_password_file) else {
        return Err(Failure::usage("--apply needs --admin-username and --admin-password-file"));
    };
    let password = read_secret(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let login = Login { username: username.clone(), password: password.into() };
    let names = DynsecAccounts::of(env);
    let all = [&names.backend, &names.canary, &names.accounts];
    let passwords = all.map(|name| (name.clone(), URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())));
    let of = |name: &str| passwords.iter().find(|(known, _)| known == name).map(|(_, password)| password.clone()).unwrap_or_default();
    // First of all: an account whose password nobody has would be of no use.
    for (name, password) in &passwords {
        keep(&args.secrets_dir, name, password).map_err(|error| Failure::usage(format!("{}: {error}", args.secrets_dir.display())))?;
    }
    let setup = DynsecSetup::new(account_keeper(&way, way.url.clone(), Some(login)));
    setup.apply(of).await.map_err(|error| {
        Failure::unavailable(error.to_string())
            .next("is Mosquitto running with the dynamic-security plugin, and is this its administrator?")
    })
}

/// A file that only its owner reads.
fn keep(dir: &Path, name: &str, password: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(format!("{name}.password")));
    file?.write_all(password.as_bytes())
}

fn serve(args: &SetupArgs, names: &DynsecAccounts) -> String {
    let file = |name: &str| args.secrets_dir.join(format!("{name}.password")).display().to_string();
    format!(
        "the server:\nmstore-sync serve --env {env} --broker {url} --broker-kind mosquitto \\\n  \
         --broker-username {backend} --broker-password-file {} \\\n  \
         --broker-canary-username {canary} --broker-canary-password-file {} \\\n  \
         --broker-admin-username {accounts} --broker-admin-password-file {}\n\
         \n# then: mstore-sync broker verify mosquitto --backend-username {backend} --backend-password-file {}",
        file(&names.backend),
        file(&names.canary),
        file(&names.accounts),
        file(&names.backend),
        env = args.env,
        url = args.url,
        backend = names.backend,
        canary = names.canary,
        accounts = names.accounts,
    )
}
