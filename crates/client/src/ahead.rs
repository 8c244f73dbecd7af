//! Lets a first snapshot's rows go to the local database while the rest of the answer is still on its way: reading lines and writing rows cost
//! about the same, so a till is filled almost twice as quickly. It is an attempt: whatever ends it, the rows are written when they are shown.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    db::LocalDb,
    shared::held,
    staged::{Segment, Staged},
};

/// Segments handed over and not written yet: all that are held in memory at most.
const SEGMENTS_MAX: usize = 1_024;
/// The file cannot be written by other programs meanwhile, which wait 5 s at most. Whoever needs longer to fetch the rows gains nothing.
const OPEN_MAX: Duration = Duration::from_secs(2);

enum Step {
    Write(Arc<Segment>),
    /// All rows are there: keep the transaction open for whoever shows them.
    Complete,
}

/// The thread that writes ahead, while there is one.
#[derive(Default)]
pub(crate) struct WriterAhead {
    thread: Option<(SyncSender<Step>, JoinHandle<()>)>,
    handed_over: usize,
}

impl WriterAhead {
    /// Hands over the segments that have become full.
    pub(crate) fn take(&mut self, staged: &Staged, db: &Arc<Mutex<LocalDb>>) {
        while let Some(segment) = staged.full().get(self.handed_over) {
            self.handed_over += 1;
            let (steps, _) = self.thread.get_or_insert_with(|| start(Arc::clone(db)));
            // It may have given up.
            let _ = steps.try_send(Step::Write(Arc::clone(segment)));
        }
    }

    /// Waits until everything handed over is written, and undone again unless the answer is complete.
    pub(crate) async fn finish(self, is_complete: bool) {
        let Some((steps, thread)) = self.thread else { return };
        if is_complete {
            // It may have given up.
            let _ = steps.try_send(Step::Complete);
        }
        drop(steps);
        if let Err(error) = thread.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

fn start(db: Arc<Mutex<LocalDb>>) -> (SyncSender<Step>, JoinHandle<()>) {
    let (steps, queue) = sync_channel(SEGMENTS_MAX);
    let thread = tokio::task::spawn_blocking(move || {
        let written = write(&db, &queue);
        let undone = if matches!(written, Ok(true)) { Ok(()) } else { held(&db).end_ahead() };
        if let Err(error) = written.map(drop).and(undone) {
            tracing::debug!(%error, "rows could not be written ahead; they are written when they are shown");
        }
    });
    (steps, thread)
}

/// Writes what comes; true when everything has come.
fn write(db: &Mutex<LocalDb>, queue: &Receiver<Step>) -> Result<bool, crate::DbError> {
    let until = Instant::now() + OPEN_MAX;
    if !held(db).begin_ahead()? {
        return Ok(false);
    }
    loop {
        match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Step::Write(segment)) if held(db).write_ahead(&segment)? => {}
            Ok(Step::Complete) => return Ok(true),
            Ok(Step::Write(_)) | Err(_) => return Ok(false),
        }
    }
}
