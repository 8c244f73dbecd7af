//! `broker setup`: what the broker needs, printed; with `--apply` done, where a broker lets that be done while it runs.

mod emqx;
mod mosquitto;
mod nats;
mod rabbitmq;

use crate::{
    args::{BrokerKind, SetupArgs},
    broker_config::read_secret,
    failure::Failure,
};

pub(super) async fn run(args: SetupArgs) -> Result<(), Failure> {
    match args.kind {
        BrokerKind::Mosquitto => mosquitto::run(args).await,
        BrokerKind::Rabbitmq => print(&args, rabbitmq::text(&args, &secret(&args)?)),
        BrokerKind::Nats => print(&args, nats::text(&args)),
        BrokerKind::Emqx => print(&args, emqx::text(&args, &secret(&args)?)),
    }
}

#[allow(clippy::print_stdout)]
fn print(args: &SetupArgs, text: String) -> Result<(), Failure> {
    if args.apply {
        return Err(
            Failure::usage("this broker is configured in files, before it starts").next("leave --apply out, and put what is printed there")
        );
    }
    println!("{text}");
    Ok(())
}

/// What the broker shows when it asks.
fn secret(args: &SetupArgs) -> Result<String, Failure> {
    let Some(file) = &args.hooks_secret_file else { return Ok("THE-SECRET-OF-HOOKS-SECRET-FILE".to_owned()) };
    let secret = read_secret(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    Ok(String::from_utf8_lossy(&secret).into_owned())
}

/// The server's side of a broker that asks.
fn serve(args: &SetupArgs, kind: &str, api: &str, admin: &str) -> String {
    format!(
        "mstore-sync serve --env {env} --broker {url} --broker-kind {kind} \\\n  --hooks-listen {hooks} --hooks-secret-file FILE \\\n  \
         --broker-username mstore-backend-{env} --broker-password-file FILE \\\n  \
         --broker-canary-username mstore-canary-{env} --broker-canary-password-file FILE \\\n  \
         --broker-admin-url {api} --broker-admin-username {admin} --broker-admin-password-file FILE",
        env = args.env,
        url = args.url,
        hooks = args.hooks,
    )
}
