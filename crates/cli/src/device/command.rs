//! What a cashier can type at `device run`.

use mstore_protocol::{BranchId, OperationId, OperationKind, Quantity};

/// One line of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// `sell ID [QUANTITY]`
    Sell(String, Quantity),
    /// `return ID [QUANTITY]`
    TakeBack(String, Quantity),
    /// `receive ID QUANTITY`
    Receive(String, Quantity),
    /// `adjust ID QUANTITY`
    Adjust(String, Quantity),
    /// `count ID QUANTITY`
    Count(String, Quantity),
    /// `transfer ID QUANTITY BRANCH`: to another branch of the merchant.
    Transfer(String, Quantity, BranchId),
    /// `show [TEXT]`: products by id, barcode or name.
    Show(String),
    /// `status`
    Status,
    /// `offline` / `online`
    Online(bool),
    /// `sync`
    Sync,
    /// `drain`: wait until everything is sent.
    Drain,
    /// `resync`: fetch everything anew; the queue stays.
    Resync,
    /// `dead`: rejected operations.
    Dead,
    /// `retry OPERATION`
    Retry(OperationId),
    /// `edit OPERATION JSON`: something else in its place.
    Edit(OperationId, OperationKind),
    /// `export FILE`: the journal for a server that this till cannot reach.
    Export(String),
    /// `discard OPERATION`
    Discard(OperationId),
    /// `help`
    Help,
    /// `quit`
    Quit,
}

/// The list that `help` prints.
pub(super) const HELP: &str = "sell ID [QTY] | return ID [QTY] | receive ID QTY | adjust ID QTY | count ID QTY | transfer ID QTY BRANCH |\n\
    show [TEXT] | status |\n\
    offline | online | sync | drain | resync | dead | retry OPERATION | edit OPERATION JSON |\n\
    discard OPERATION | export FILE | quit";

impl Command {
    /// Parses a line; an empty one is `status`.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or("status");
        let rest: Vec<&str> = words.collect();
        let item = || rest.first().map(|id| (*id).to_owned()).ok_or_else(|| format!("{verb} what? {verb} ID QTY"));
        let quantity = |default: Option<&str>| {
            let raw = rest.get(1).copied().or(default).ok_or_else(|| format!("{verb} how much? {verb} ID QTY"))?;
            Quantity::parse(raw).map_err(|error| error.to_string())
        };
        let operation = || {
            let raw = rest.first().copied().unwrap_or_default();
            OperationId::parse(raw).ok_or_else(|| format!("{raw:?} is not an operation id; `dead` lists them"))
        };
        Ok(match verb {
            "sell" | "s" => Self::Sell(item()?, quantity(Some("1"))?),
            "return" => Self::TakeBack(item()?, quantity(Some("1"))?),
            "receive" => Self::Receive(item()?, quantity(None)?),
            "adjust" => Self::Adjust(item()?, quantity(None)?),
            "count" => Self::Count(item()?, quantity(None)?),
            "transfer" => {
                let raw = rest.get(2).copied().ok_or("transfer where to? transfer ID QTY BRANCH")?;
                Self::Transfer(item()?, quantity(None)?, BranchId::parse(raw).map_err(|error| error.to_string())?)
            }
            "show" => Self::Show(rest.join(" ")),
            "status" => Self::Status,
            "offline" => Self::Online(false),
            "online" => Self::Online(true),
            "sync" => Self::Sync,
            "drain" => Self::Drain,
            "resync" => Self::Resync,
            "dead" => Self::Dead,
            "retry" => Self::Retry(operation()?),
            "edit" => {
                let id = operation()?;
                let json = rest[1..].join(" ");
                let kind = serde_json::from_str(&json).map_err(|error| format!("edit {id} with what? an operation as JSON: {error}"))?;
                Self::Edit(id, kind)
            }
            "export" => Self::Export(rest.first().map(|file| (*file).to_owned()).ok_or("export to which file?")?),
            "discard" => Self::Discard(operation()?),
            "help" | "?" => Self::Help,
            "quit" | "exit" | "q" => Self::Quit,
            other => return Err(format!("{other:?} is not a command; try help")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_become_commands_or_say_what_is_missing() {
        let milli = Quantity::from_milli;
        assert_eq!(Command::parse("sell tea 1.5").unwrap(), Command::Sell("tea".into(), milli(1500)));
        assert_eq!(Command::parse(" s tea ").unwrap(), Command::Sell("tea".into(), milli(1000)));
        assert_eq!(Command::parse("adjust tea -0.5").unwrap(), Command::Adjust("tea".into(), milli(-500)));
        assert_eq!(Command::parse("show teh melati").unwrap(), Command::Show("teh melati".into()));
        assert_eq!(Command::parse("").unwrap(), Command::Status);
        for bad in [
            "sell",
            "count tea",
            "sell tea 1.50",
            "transfer tea 2",
            "retry 17",
            "edit 019aab12-3456-7abc-8def-0123456789ab {}",
            "export",
            "dance",
        ] {
            assert!(Command::parse(bad).is_err(), "{bad}");
        }
    }
}
