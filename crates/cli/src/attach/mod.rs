//! `attach` and `detach`: puts capture on tables that are not ours, and takes it away.
//!
//! It shows and asks; what is proposed, checked and done is the store's business.

mod file;
mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use mstore_protocol::{Currency, MerchantId};
use mstore_store::postgres::attach::{
    AttachError, Attacher, Given, Progress,
    mapping::{Mapping, MerchantMapping},
    propose,
};

use crate::{
    args::{AttachArgs, DetachArgs, OnOff},
    failure::Failure,
};

/// Shown and written until somebody says which one it is.
const CURRENCY_UNSAID: &str = "USD";

/// `attach`.
pub(crate) async fn run(args: AttachArgs) -> Result<(), Failure> {
    let mut attacher = connect(&args.database).await?;
    let mapping = if args.config.exists() { file::read(&args.config)? } else { proposed(&attacher, &args).await? };
    let plan = attacher.plan(mapping).await.map_err(failure)?;
    show::plan(&plan, args.print_sql);
    if args.dry_run {
        return Ok(());
    }
    let question = format!("Put capture on these tables? The mapping is {}.", args.config.display());
    agreed(args.yes, &question, "run it again with --yes, or on a terminal; --print-sql shows every statement")?;
    attacher.prepare().await.map_err(failure)?;
    let bar = show::Bar::new();
    let inbox = args.operation_inbox.map(|choice| choice == OnOff::On);
    attacher.install(&plan, inbox, &mut |progress: Progress| bar.show(&progress)).await.map_err(failure)?;
    bar.finish();
    show::attached(&plan, attacher.is_inbox_on().await.map_err(failure)?);
    Ok(())
}

/// Looks at the tables and writes what is proposed.
async fn proposed(attacher: &Attacher, args: &AttachArgs) -> Result<Mapping, Failure> {
    if args.currency.is_none() && args.yes {
        return Err(Failure::usage("no table says which currency the prices are in").next("name it: --currency IDR"));
    }
    let currency = args.currency.as_deref().unwrap_or(CURRENCY_UNSAID);
    Currency::parse(currency).map_err(|error| Failure::usage(format!("--currency: {error}")))?;
    let name = attacher.database().await.map_err(failure)?;
    let id = args.merchant.clone().unwrap_or_else(|| file::segment(&name));
    MerchantId::parse(&id).map_err(|error| Failure::usage(format!("--merchant: {error}")))?;
    let given = Given { merchant: MerchantMapping { id, name, currency: currency.to_owned() }, branch: args.branch.clone() };
    let tables = attacher.look().await.map_err(failure)?;
    let proposal = propose(&tables, &given);
    let text = file::text(&proposal, &tables, args.currency.is_some());
    std::fs::write(&args.config, text)
        .map_err(|error| Failure::unavailable(format!("{} cannot be written: {error}", args.config.display())))?;
    show::proposal(&proposal, &args.config);
    // What was written is what is carried out, not what was meant.
    file::read(&args.config)
}

/// `detach`.
pub(crate) async fn detach(args: DetachArgs) -> Result<(), Failure> {
    let mut attacher = connect(&args.database).await?;
    let attached = attacher.attached().await.map_err(failure)?;
    let unknown = args.collections.iter().find(|name| !attached.contains(name));
    if let Some(name) = unknown {
        let all = if attached.is_empty() { "nothing is".to_owned() } else { format!("attached are {}", attached.join(", ")) };
        return Err(Failure::usage(format!("{name} is not attached; {all}")));
    }
    let collections = if args.collections.is_empty() { attached } else { args.collections };
    let question = match args.purge {
        true => "Take capture off all tables and DROP the schema mstore, with devices, operations and receipts?".to_owned(),
        false => format!(
            "Take capture off {}? Devices keep what they have.",
            if collections.is_empty() { "nothing".into() } else { collections.join(", ") }
        ),
    };
    agreed(args.yes, &question, "run it again with --yes, or on a terminal")?;
    for collection in &collections {
        let triggers = attacher.detach(collection).await.map_err(failure)?;
        show::detached(collection, triggers);
    }
    if args.purge {
        attacher.purge().await.map_err(failure)?;
        show::purged();
    }
    Ok(())
}

async fn connect(url: &str) -> Result<Attacher, Failure> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(Failure::usage("--database takes postgres://user:password@host:port/database"));
    }
    Attacher::connect(url).await.map_err(failure)
}

/// Asks, on a terminal; elsewhere only `--yes` will do.
#[allow(clippy::print_stderr)]
fn agreed(yes: bool, question: &str, otherwise: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is here to be asked, and nothing was changed").next(otherwise));
    }
    eprint!("{question} [y/N] ");
    let _not_flushed = std::io::stderr().flush();
    let mut answer = String::new();
    let _nothing = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::usage("nothing was changed")) }
}

/// What an error of the store means to whoever runs the command.
pub(crate) fn failure(error: AttachError) -> Failure {
    let code = error.code();
    let message = format!("{error} ({code})");
    let failure = match &error {
        AttachError::Unreachable(_) | AttachError::Locked { .. } | AttachError::Database(_) => Failure::unavailable(message),
        AttachError::Mapping { .. } | AttachError::NotAllowed { .. } | AttachError::Damaged(_) => Failure::usage(message),
    };
    failure.next(code.next_step())
}
