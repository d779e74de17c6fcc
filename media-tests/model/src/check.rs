//! Explores a world to its end.

use crate::acts::Act;
use crate::handover::checks::Checks;
use crate::handover::message::Mode;
use crate::scopes::Scope;
use crate::story;
use crate::truth::NAMES;
use crate::world::World;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// A scope with the machines whose checks `C` names.
#[derive(Debug, Clone)]
pub struct Handover<C> {
    /// Its bounds.
    pub scope: Scope,
    checks: PhantomData<C>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Situations that differ.
    pub unique: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// Most steps from the start to a situation, by the shortest way.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Nothing was left unexplored.
    pub complete: bool,
    /// Properties that were broken, each with its story.
    pub broken: Vec<(String, String)>,
    /// What was to be reached and was not: then nothing is proved.
    pub missed: Vec<&'static str>,
}

fn holds<C: Checks, const BIT: usize>(_: &Handover<C>, world: &World<C>) -> bool {
    world.broken & 1 << BIT == 0
}

impl<C: Checks + Send + Sync> Model for Handover<C> {
    type State = World<C>;
    type Action = Act;

    fn init_states(&self) -> Vec<World<C>> {
        vec![World::new(&self.scope)]
    }

    fn actions(&self, world: &World<C>, acts: &mut Vec<Act>) {
        if world.broken == 0 {
            world.options(&self.scope, acts);
        }
    }

    fn next_state(&self, world: &World<C>, act: Act) -> Option<World<C>> {
        world.after(&self.scope, act)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! invariants {
            ($($bit:literal)*) => { vec![$(Property::always(NAMES[$bit], holds::<C, $bit>)),*] };
        }
        let mut all = invariants!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        all.push(Property::always("HO-I-007, from everywhere", |_, w: &World<C>| w.take_works()));
        if self.scope.heals {
            all.push(Property::always("HO-I-018", |m: &Self, w: &World<C>| w.broken != 0 || w.heals(&m.scope)));
        }
        all.push(Property::sometimes("REMOTE is reached", |_, w: &World<C>| w.mode() == Some(Mode::Remote)));
        if self.scope.moves || self.scope.budget.motions > 1 {
            all.push(Property::sometimes("the device moves", |_, w: &World<C>| w.truth.newest.1.0 > 0));
        }
        all
    }
}

/// Explores it, up to `limit` where there is one, and until the first property is broken.
#[must_use]
pub fn explore<C: Checks + Send + Sync>(scope: &Scope, threads: usize, limit: Option<Duration>) -> Outcome {
    let started = Instant::now();
    let model = Handover::<C> { scope: scope.clone(), checks: PhantomData };
    let builder = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let builder = if let Some(limit) = limit { builder.timeout(limit) } else { builder };
    let checker = builder.spawn_bfs().join();
    let complete = limit.is_none_or(|limit| started.elapsed() < limit);
    let mut outcome = Outcome {
        unique: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        time: started.elapsed(),
        complete,
        broken: Vec::new(),
        missed: Vec::new(),
    };
    let found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.get(property.name);
        match (property.expectation.discovery_is_failure(), path) {
            (true, Some(path)) => {
                let story = story::tell(scope, path.clone().into_vec(), property.name);
                outcome.broken.push((property.name.to_owned(), story));
            }
            (false, None) => outcome.missed.push(property.name),
            _ => {}
        }
    }
    outcome
}
