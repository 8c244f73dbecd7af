//! Every run comes to an end: the checker itself cannot tell a run that goes in circles from one that goes on.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use stateright::Model;

/// Whether a state lies on the path that is being walked, or has been left for good.
#[derive(PartialEq)]
enum Mark {
    OnPath,
    Left,
}

/// A state of the path, and the steps from it that are still to be walked.
struct Stop<M: Model> {
    print: u64,
    following: Vec<(M::Action, M::State)>,
    /// The step that is being walked.
    taken: Option<M::Action>,
}

/// The number of states that some run ends in, or the steps of a run that goes in a circle. Depth first: a step to a state of the path is one.
pub(crate) fn ends<M: Model<State: Hash, Action: Clone>>(model: &M) -> Result<usize, Vec<M::Action>> {
    let mut marks: HashMap<u64, Mark> = HashMap::new();
    let mut path: Vec<Stop<M>> = model.init_states().iter().map(|state| stop(model, state, &mut marks)).collect();
    let mut ends = 0;
    while let Some(at) = path.last_mut() {
        let Some((step, next)) = at.following.pop() else {
            marks.insert(at.print, Mark::Left);
            path.pop();
            continue;
        };
        at.taken = Some(step);
        let print = print_of(&next);
        match marks.get(&print) {
            Some(Mark::OnPath) => {
                let circle = path.iter().skip_while(|stop| stop.print != print);
                return Err(circle.filter_map(|stop| stop.taken.clone()).collect());
            }
            Some(Mark::Left) => {}
            None => {
                path.push(stop(model, &next, &mut marks));
                ends += usize::from(path.last().is_some_and(|stop| stop.following.is_empty()));
            }
        }
    }
    Ok(ends)
}

fn print_of(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn stop<M: Model<State: Hash>>(model: &M, state: &M::State, marks: &mut HashMap<u64, Mark>) -> Stop<M> {
    let print = print_of(state);
    marks.insert(print, Mark::OnPath);
    Stop { print, following: model.next_steps(state), taken: None }
}
