//! Named, bounded worlds.

use crate::acts::Act;
use crate::handover::types::GrantedSet;
use crate::parts::{Budget, Relay};

/// A world's bounds.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    /// Experts: one or two.
    pub experts: usize,
    /// The first epoch that the gate's disk does not cover at the start.
    pub covered: u64,
    /// What may be offered.
    pub sets: &'static [GrantedSet],
    /// How often what may happen.
    pub budget: Budget,
    /// What the relay keeps.
    pub relay: Relay,
    /// For how many ticks it does.
    pub memory: u64,
    /// The expert moves with each tick.
    pub moves: bool,
    /// Screens probe, and STATUS counts.
    pub mirror: bool,
    /// Local may close the session.
    pub closes: bool,
    /// A second gate may be started.
    pub second: bool,
    /// The device, its cable and its reports may fail.
    pub device: bool,
    /// The way back to REMOTE is tried from every situation.
    pub heals: bool,
    /// What else must be allowed before it may happen: narrows a story to its people.
    pub allows: fn(&Act) -> bool,
}

const CAMERA: &[GrantedSet] = &[GrantedSet::CAMERA];
const ENERGY: &[GrantedSet] = &[GrantedSet::ENERGY];

/// Nothing may happen but one offer.
pub const NONE: Budget = Budget {
    offers: 1,
    locals: 0,
    experts: 0,
    replays: 0,
    forges: 0,
    cuts: 0,
    crashes: 0,
    pauses: 0,
    failures: 0,
    colours: 0,
    consents: 0,
    videos: 0,
    hands: 0,
    motions: 0,
    sleeps: 0,
};

const HONEST: Relay = Relay { most: 3, beacons: false, heartbeats: false, commands: false, copies: false };

const BASE: Scope = Scope {
    name: "base",
    about: "",
    experts: 1,
    covered: 32,
    sets: CAMERA,
    budget: NONE,
    relay: HONEST,
    memory: 4,
    moves: true,
    mirror: false,
    closes: false,
    second: false,
    device: false,
    heals: true,
    allows: |_| true,
};

/// Those that CI explores, each within a minute or two on one core.
#[must_use]
pub fn ci() -> Vec<Scope> {
    [exchanges(), failures()].concat()
}

/// Those of messages: people, the disk, the relay.
fn exchanges() -> Vec<Scope> {
    vec![
        Scope {
            name: "handshake",
            about: "one expert, two offers; acts of both sides cross on the way, the disk is slow",
            budget: Budget { offers: 2, experts: 1, ..NONE },
            ..BASE
        },
        Scope {
            name: "local",
            about: "everything that local can press, at any time; the disk is slow or fails",
            budget: Budget { offers: 1, locals: 2, failures: 1, ..NONE },
            closes: true,
            ..BASE
        },
        Scope {
            name: "races",
            about: "two experts, two offers, ACCEPT of the wrong one, ESTOP from the network",
            experts: 2,
            sets: &[GrantedSet::INSTRUMENTS],
            budget: Budget { offers: 2, forges: 1, ..NONE },
            ..BASE
        },
        Scope {
            name: "disk",
            about: "epochs that no disk covers yet, reservations and intents that are slow or fail, the gate killed in between",
            covered: 3,
            budget: Budget { offers: 2, failures: 1, crashes: 1, ..NONE },
            ..BASE
        },
        Scope {
            name: "relay",
            about: "a relay that keeps, drops, reorders and repeats commands; a gate that sleeps before it hands out",
            budget: Budget { offers: 1, replays: 2, sleeps: 1, motions: 2, ..NONE },
            relay: Relay { commands: true, ..HONEST },
            ..BASE
        },
        Scope {
            name: "heartbeats",
            about: "the same of heartbeats",
            budget: Budget { offers: 1, replays: 2, sleeps: 1, motions: 2, ..NONE },
            relay: Relay { heartbeats: true, ..HONEST },
            moves: false,
            ..BASE
        },
        Scope {
            name: "beacons",
            about: "a relay that keeps, drops, reorders and repeats BEACONs, and makes up some",
            budget: Budget { offers: 1, replays: 2, forges: 1, cuts: 1, ..NONE },
            relay: Relay { most: 2, beacons: true, ..HONEST },
            ..BASE
        },
        Scope {
            name: "forgeries",
            about: "a hostile second expert and a hostile program: foreign keys, wrong epochs, jumps; copies of what was delivered",
            experts: 2,
            budget: Budget { offers: 1, replays: 1, forges: 2, ..NONE },
            relay: Relay { most: 2, copies: true, ..HONEST },
            ..BASE
        },
    ]
}

/// Those in which programs, devices, links and people fail.
fn failures() -> Vec<Scope> {
    vec![
        Scope {
            name: "crashes",
            about: "gate and station crash and come back; a store that cannot be read",
            budget: Budget { offers: 1, crashes: 2, failures: 1, ..NONE },
            ..BASE
        },
        Scope {
            name: "pauses",
            about: "gate and station are stopped for a while and go on, with all that waited for them",
            budget: Budget { offers: 1, experts: 1, pauses: 1, ..NONE },
            ..BASE
        },
        Scope {
            name: "device",
            about: "the device's cable and its reports fail, the line to the expert is cut",
            budget: Budget { offers: 1, cuts: 2, ..NONE },
            device: true,
            ..BASE
        },
        Scope {
            name: "restarts",
            about: "the device restarts, the hardware override is used",
            budget: Budget { offers: 1, locals: 1, crashes: 1, ..NONE },
            device: true,
            ..BASE
        },
        Scope {
            name: "second-gate",
            about: "a second gate for the same device, while the first one pauses",
            budget: Budget { offers: 1, locals: 1, pauses: 1, motions: 1, ..NONE },
            second: true,
            moves: false,
            allows: |act| !matches!(act, Act::Console(_) | Act::Estop | Act::PauseStation(..)),
            heals: false,
            ..BASE
        },
        Scope {
            name: "links",
            about: "link gates turn amber and red, consent ends and comes back",
            budget: Budget { offers: 1, colours: 2, consents: 2, ..NONE },
            ..BASE
        },
        Scope {
            name: "pictures",
            about: "frozen and lost pictures, a camera moved by another while instruments are held",
            sets: &[GrantedSet::INSTRUMENTS],
            budget: Budget { offers: 1, experts: 1, videos: 2, ..NONE },
            ..BASE
        },
        Scope {
            name: "hands",
            about: "presence, pedals and clutch at any time, with energy granted",
            sets: ENERGY,
            budget: Budget { offers: 1, experts: 1, hands: 3, ..NONE },
            ..BASE
        },
        Scope {
            name: "screens",
            about: "the expert's screen, with STATUS and probes held back by the relay",
            budget: NONE,
            allows: |act| !matches!(act, Act::ConfirmAmber | Act::Console(_)),
            mirror: true,
            moves: false,
            heals: false,
            ..BASE
        },
    ]
}

/// The same with once more of everything that may happen in them: `make model`.
#[must_use]
pub fn deep() -> Vec<Scope> {
    let more = |n: u8| if n == 0 { 0 } else { n + 1 };
    ci().into_iter()
        .map(|scope| Scope {
            budget: Budget {
                offers: scope.budget.offers,
                locals: more(scope.budget.locals),
                experts: more(scope.budget.experts),
                replays: more(scope.budget.replays),
                forges: more(scope.budget.forges),
                cuts: more(scope.budget.cuts),
                crashes: scope.budget.crashes,
                pauses: scope.budget.pauses,
                failures: scope.budget.failures,
                colours: scope.budget.colours,
                consents: scope.budget.consents,
                videos: more(scope.budget.videos),
                hands: more(scope.budget.hands),
                motions: more(scope.budget.motions),
                sleeps: scope.budget.sleeps,
            },
            ..scope
        })
        .collect()
}

/// By its name, of those that CI explores.
#[must_use]
pub fn named(name: &str) -> Option<Scope> {
    ci().into_iter().find(|s| s.name == name)
}
