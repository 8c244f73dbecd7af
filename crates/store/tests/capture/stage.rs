//! A reader beside all writers, from before the first transaction until everything has been told.

use tokio::task::JoinHandle;

use crate::{
    observer::{Findings, Observer},
    workload::Shop,
};

/// Somebody who learns what changes.
pub(crate) trait Reads {
    /// Tells the observer everything new; how much that was.
    async fn poll(&mut self, observer: &mut Observer) -> usize;

    /// Nobody writes any more: returns when polls will tell all of it.
    async fn settle(&mut self) {}
}

/// Reads as long as `writing` lasts, and to the end after it; what was wrong.
pub(crate) async fn watch(reader: &mut impl Reads, mut observer: Observer, shop: &Shop, writing: &JoinHandle<()>) -> Findings {
    while !writing.is_finished() {
        reader.poll(&mut observer).await;
    }
    reader.settle().await;
    while reader.poll(&mut observer).await > 0 {}
    let found = observer.end(&shop.source().await);
    println!("{}: {found:?}", shop.schema);
    found
}
