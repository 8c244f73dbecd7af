//! The upload queue's decisions: one upload at a time, one bad operation never blocks the others, nothing is ever dropped in silence.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mstore_protocol::{Code, OperationId, Seq, Timestamp, Verdict, VerdictStatus, limits::OPERATIONS_PER_UPLOAD_MAX};

use crate::{
    Moment,
    backoff::{Backoff, Dice},
    effect::Effect,
    input::{QueuedOperation, UploadOutcome},
};

/// A refused login or right is tried again this seldom, milliseconds.
const REFUSED_BASE_MS: u64 = 10_000;
const REFUSED_CAP_MS: u64 = 300_000;
const RETRY_BASE_MS: u64 = 500;
const RETRY_CAP_MS: u64 = 60_000;

/// Operations without a verdict and what is known of the way to the server.
#[derive(Debug)]
pub(crate) struct UploadQueue {
    waiting: VecDeque<QueuedOperation>,
    in_flight: Option<Vec<QueuedOperation>>,
    /// Operations per upload now; halved when the way refuses a whole upload.
    limit: usize,
    retry_at: Option<Moment>,
    retry: Backoff,
    refused: Backoff,
    /// Set while credentials or rights are refused.
    pub(crate) blocked: Option<Code>,
    /// The highest number that a verdict has given to an operation.
    promised: Option<Seq>,
    /// Uploads that got an answer, ever.
    answered: u64,
    /// Operations refused when sent alone, with `answered` at that time.
    suspects: BTreeMap<OperationId, u64>,
}

impl UploadQueue {
    pub(crate) fn new(queue: Vec<QueuedOperation>) -> Self {
        Self {
            waiting: queue.into(),
            in_flight: None,
            limit: OPERATIONS_PER_UPLOAD_MAX,
            retry_at: None,
            retry: Backoff::new(RETRY_BASE_MS, RETRY_CAP_MS),
            refused: Backoff::new(REFUSED_BASE_MS, REFUSED_CAP_MS),
            blocked: None,
            promised: None,
            answered: 0,
            suspects: BTreeMap::new(),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.waiting.len() + self.in_flight.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.waiting.iter().chain(self.in_flight.iter().flatten()).map(|operation| operation.at).min()
    }

    /// Every waiting operation was refused alone and nothing got through since: it is the way, not the operations.
    pub(crate) fn path_refuses(&self) -> bool {
        let refused_lately = |operation: &QueuedOperation| self.suspects.get(&operation.id) == Some(&self.answered);
        !self.waiting.is_empty() && self.in_flight.is_none() && self.waiting.iter().all(refused_lately)
    }

    /// A new operation; a waiting retry of others does not hold it up unless the server asked for patience.
    pub(crate) fn add(&mut self, operation: QueuedOperation) {
        let held = |other: &QueuedOperation| other.id == operation.id;
        if !self.waiting.iter().chain(self.in_flight.iter().flatten()).any(held) {
            self.waiting.push_back(operation);
        }
    }

    /// Operations that wait again, of which some may be waiting still.
    pub(crate) fn requeue(&mut self, operations: Vec<QueuedOperation>) {
        let known: BTreeSet<OperationId> = self.waiting.iter().chain(self.in_flight.iter().flatten()).map(|held| held.id).collect();
        self.waiting.extend(operations.into_iter().filter(|operation| !known.contains(&operation.id)));
    }

    /// A bug that the simulator plants.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// The highest number that a verdict has given: a server whose head is below it has lost that commit since.
    pub(crate) fn promised(&self) -> Option<Seq> {
        self.promised
    }

    /// Accepted operations are handed in again: what their verdicts said counts no more.
    pub(crate) fn forget_promises(&mut self) {
        self.promised = None;
    }

    /// The network is said to be back: no reason to wait.
    pub(crate) fn hurry(&mut self) {
        self.retry_at = None;
        self.retry.reset();
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        let may = self.in_flight.is_none() && !self.waiting.is_empty();
        may.then(|| self.retry_at.unwrap_or(0))
    }

    /// The next upload, if its time has come.
    pub(crate) fn start(&mut self, now: Moment) -> Option<Effect> {
        if self.deadline().is_none_or(|due| due > now) {
            return None;
        }
        let alone = self.waiting.front().is_some_and(|first| self.suspects.contains_key(&first.id));
        let wanted = if alone { 1 } else { self.limit };
        let suspects = &self.suspects;
        let count = self.waiting.iter().take(wanted).take_while(|operation| alone || !suspects.contains_key(&operation.id)).count();
        let batch: Vec<QueuedOperation> = self.waiting.drain(..count).collect();
        let ids = batch.iter().map(|operation| operation.id).collect();
        self.retry_at = None;
        self.in_flight = Some(batch);
        Some(Effect::Upload(ids))
    }

    /// What became of it; the effect to write down, if any.
    pub(crate) fn ended(&mut self, now: Moment, dice: &mut Dice, outcome: UploadOutcome) -> Option<Effect> {
        let batch = self.in_flight.take().expect("an upload ended that was not begun");
        match outcome {
            UploadOutcome::Answered(verdicts) => self.answered(now, dice, batch, verdicts),
            UploadOutcome::Rejected(code) => self.rejected(now, dice, batch, code),
            UploadOutcome::Refused(code) => {
                self.blocked = Some(code);
                self.retry_at = Some(now + self.refused.next_ms(dice, None));
                self.put_back(batch);
                None
            }
            UploadOutcome::Failed(fault) => {
                self.retry_at = Some(now + self.retry.next_ms(dice, fault.retry_after_ms));
                self.put_back(batch);
                None
            }
        }
    }

    fn put_back(&mut self, batch: Vec<QueuedOperation>) {
        for operation in batch.into_iter().rev() {
            self.waiting.push_front(operation);
        }
    }

    fn answered(&mut self, now: Moment, dice: &mut Dice, batch: Vec<QueuedOperation>, verdicts: Vec<Verdict>) -> Option<Effect> {
        self.blocked = None;
        self.refused.reset();
        let mut verdicts = matched(&batch, verdicts);
        let (known, forgotten): (Vec<_>, Vec<_>) = batch.into_iter().partition(|operation| verdicts.contains_key(&operation.id));
        if forgotten.is_empty() {
            self.retry.reset();
        } else {
            // A server that answers for some only: the others go again, later and alone.
            self.retry_at = Some(now + self.retry.next_ms(dice, None));
        }
        let before = self.answered;
        for operation in &known {
            self.suspects.remove(&operation.id);
        }
        if !known.is_empty() {
            self.answered += 1;
            self.limit = (self.limit * 2).min(OPERATIONS_PER_UPLOAD_MAX);
        }
        for operation in forgotten {
            if let Some(verdict) = self.suspect(operation, before, Code::NoVerdict) {
                verdicts.insert(operation.id, verdict);
            }
        }
        self.promised = self.promised.max(verdicts.values().filter_map(|verdict| verdict.seq).max());
        (!verdicts.is_empty()).then(|| Effect::Settle(verdicts.into_values().collect()))
    }

    /// Halve; a lone operation waits at the end of the queue until another has got through, and is given up only then.
    fn rejected(&mut self, now: Moment, dice: &mut Dice, batch: Vec<QueuedOperation>, code: Code) -> Option<Effect> {
        if batch.len() > 1 {
            self.limit = batch.len() / 2;
            self.put_back(batch);
            return None;
        }
        let operation = batch.into_iter().next().expect("an upload holds at least one operation");
        let verdict = self.suspect(operation, self.answered, code);
        if verdict.is_none() && self.path_refuses() {
            self.retry_at = Some(now + self.retry.next_ms(dice, None));
        }
        verdict.map(|verdict| Effect::Settle(vec![verdict]))
    }

    /// It got nowhere when `answered` uploads had an answer: it waits at the end of the queue, and is given up if others got through since the time before.
    fn suspect(&mut self, operation: QueuedOperation, answered: u64, code: Code) -> Option<Verdict> {
        let before = self.suspects.insert(operation.id, answered);
        if before.is_some_and(|before| before < self.answered) {
            self.suspects.remove(&operation.id);
            return Some(given_up(operation.id, code));
        }
        self.waiting.push_back(operation);
        None
    }
}

/// The verdicts by operation. One that names no operation of the upload belongs to the operation in its place, if there are as many of both: what is damaged beyond
/// having an id is answered, too.
fn matched(batch: &[QueuedOperation], verdicts: Vec<Verdict>) -> BTreeMap<OperationId, Verdict> {
    let own: BTreeSet<OperationId> = batch.iter().map(|operation| operation.id).collect();
    let named = |verdict: &Verdict| OperationId::parse(&verdict.id).filter(|id| own.contains(id));
    let mut by_id: BTreeMap<OperationId, Verdict> =
        verdicts.iter().filter_map(|verdict| Some((named(verdict)?, verdict.clone()))).collect();
    if verdicts.len() == batch.len() {
        for (operation, verdict) in batch.iter().zip(&verdicts) {
            // Only a rejection: nothing is believed to be accepted that the answer does not name.
            if named(verdict).is_none() && verdict.status == VerdictStatus::Rejected {
                by_id.entry(operation.id).or_insert_with(|| Verdict { id: operation.id.to_string(), ..verdict.clone() });
            }
        }
    }
    by_id
}

fn given_up(id: OperationId, code: Code) -> Verdict {
    let detail = if code == Code::NoVerdict {
        "the server answered without a verdict for it whenever it was sent, while others got theirs"
    } else {
        "refused on its way whenever it was sent, while others got through"
    };
    Verdict { id: id.to_string(), status: VerdictStatus::Rejected, seq: None, code: Some(code), detail: Some(detail.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Fault;

    fn id(n: u8) -> OperationId {
        OperationId::from_parts(Timestamp::from_ms(0), [n; 10])
    }

    /// Drives a queue of `n` operations against a way to the server; gives the sizes of the uploads and what was settled.
    fn check(n: u8, steps: usize, way: impl Fn(&[OperationId]) -> UploadOutcome) -> (Vec<usize>, Vec<Verdict>, UploadQueue) {
        let queued = (0..n).map(|n| QueuedOperation { id: id(n), at: Timestamp::from_ms(i64::from(n)) });
        let (mut queue, mut dice) = (UploadQueue::new(queued.collect()), Dice::new(1));
        let (mut sizes, mut settled, mut now) = (Vec::new(), Vec::new(), 0);
        for _ in 0..steps {
            now = now.max(queue.deadline().unwrap_or(now));
            let Some(Effect::Upload(ids)) = queue.start(now) else { break };
            sizes.push(ids.len());
            if let Some(Effect::Settle(verdicts)) = queue.ended(now, &mut dice, way(&ids)) {
                settled.extend(verdicts);
            }
        }
        (sizes, settled, queue)
    }

    fn accept(ids: &[OperationId]) -> UploadOutcome {
        let verdict =
            |id: &OperationId| Verdict { id: id.to_string(), status: VerdictStatus::Accepted, seq: Some(1), code: None, detail: None };
        UploadOutcome::Answered(ids.iter().map(verdict).collect())
    }

    #[test]
    fn all_go_at_once_when_the_way_is_good() {
        let (sizes, settled, queue) = check(9, 99, accept);
        assert_eq!((sizes, settled.len(), queue.depth()), (vec![9], 9, 0));
    }

    #[test]
    fn one_operation_that_the_way_refuses_becomes_a_dead_letter_and_blocks_nobody() {
        let way = |ids: &[OperationId]| if ids.contains(&id(3)) { UploadOutcome::Rejected(Code::BodyTooLarge) } else { accept(ids) };
        let (_, settled, queue) = check(9, 99, way);
        assert_eq!(queue.depth(), 0);
        let rejected: Vec<_> = settled.iter().filter(|verdict| verdict.status == VerdictStatus::Rejected).map(|v| v.id.clone()).collect();
        assert_eq!((rejected, settled.len()), (vec![id(3).to_string()], 9));
    }

    #[test]
    fn a_way_that_refuses_everything_loses_nothing() {
        let (_, settled, queue) = check(5, 200, |_| UploadOutcome::Rejected(Code::BodyTooLarge));
        assert!(settled.is_empty());
        assert_eq!(queue.depth(), 5);
        assert!(queue.path_refuses());
    }

    #[test]
    fn a_lone_operation_is_never_given_up_while_nothing_else_got_through() {
        let (_, settled, queue) = check(1, 200, |_| UploadOutcome::Rejected(Code::MalformedRequest));
        assert!(settled.is_empty() && queue.depth() == 1);
    }

    #[test]
    fn a_rejection_without_an_id_belongs_to_the_operation_in_its_place() {
        let nameless = |ids: &[OperationId]| {
            let UploadOutcome::Answered(mut verdicts) = accept(ids) else { panic!() };
            for verdict in verdicts.iter_mut().filter(|verdict| verdict.id == id(1).to_string()) {
                *verdict = Verdict { id: String::new(), ..given_up(id(1), Code::MalformedOperation) };
            }
            UploadOutcome::Answered(verdicts)
        };
        let (sizes, settled, queue) = check(3, 99, nameless);
        assert_eq!((sizes, settled.len(), queue.depth()), (vec![3], 3, 0));
        let rejected: Vec<_> = settled.iter().filter(|verdict| verdict.status == VerdictStatus::Rejected).collect();
        assert_eq!((rejected.len(), &rejected[0].id, rejected[0].code), (1, &id(1).to_string(), Some(Code::MalformedOperation)));
    }

    #[test]
    fn an_acceptance_that_names_nobody_is_not_believed() {
        let nameless = |ids: &[OperationId]| {
            let UploadOutcome::Answered(verdicts) = accept(ids) else { panic!() };
            UploadOutcome::Answered(verdicts.into_iter().map(|verdict| Verdict { id: String::new(), ..verdict }).collect())
        };
        let (_, settled, queue) = check(2, 50, nameless);
        assert_eq!((settled.len(), queue.depth()), (0, 2));
    }

    #[test]
    fn an_operation_that_never_gets_a_verdict_becomes_a_dead_letter_once_others_got_theirs() {
        let forgetful = |ids: &[OperationId]| {
            let others: Vec<_> = ids.iter().copied().filter(|of| *of != id(2)).collect();
            accept(&others)
        };
        let (sizes, settled, queue) = check(5, 99, forgetful);
        assert_eq!((sizes, queue.depth()), (vec![5, 1], 0));
        let dead: Vec<_> = settled.iter().filter(|verdict| verdict.status == VerdictStatus::Rejected).collect();
        assert_eq!((settled.len(), dead.len(), &dead[0].id, dead[0].code), (5, 1, &id(2).to_string(), Some(Code::NoVerdict)));
        let (_, settled, queue) = check(1, 99, |_| UploadOutcome::Answered(Vec::new()));
        assert_eq!((settled.len(), queue.depth()), (0, 1), "alone it is never given up");
    }

    #[test]
    fn faults_and_refusals_keep_the_order() {
        for outcome in [UploadOutcome::Failed(Fault::default()), UploadOutcome::Refused(Code::CredentialsRefused)] {
            let (sizes, settled, mut queue) = check(4, 3, |_| outcome.clone());
            assert_eq!((sizes, settled.len()), (vec![4, 4, 4], 0));
            let due = queue.deadline().expect("it will be tried again");
            assert_eq!(queue.start(due), Some(Effect::Upload((0..4).map(id).collect())));
        }
    }
}
