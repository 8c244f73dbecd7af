//! `broker`: prepares a broker of one's own and tries the access matrix on it, live.

mod setup;
mod verify;

use crate::{
    args::{BrokerAction, BrokerArgs},
    failure::Failure,
};

pub(crate) async fn run(args: BrokerArgs) -> Result<(), Failure> {
    match args.action {
        BrokerAction::Setup(args) => setup::run(args).await,
        BrokerAction::Verify(args) => verify::run(args).await,
    }
}
