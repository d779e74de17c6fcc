//! Tokens that were exchanged for fresh ones, so that each gives one line of successors: whoever stole a token cannot live on by it unnoticed.
//!
//! A token may be exchanged again for as long as no successor of it was shown: an answer may have been lost on its way. After that it is
//! a replay, which is refused and recorded, by whichever of the two came second. What is remembered is a token's id (`jti`) until the token
//! has run out. Policy when there is no room: the exchange is refused, for a replay could not be told; joining with the link goes on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::{ParticipantId, SessionId};

/// Exchanged tokens that are remembered.
const MOST: usize = 65_536;
/// Of these those of one participant. A client exchanges a token each few minutes.
const EACH: u32 = 64;
/// How long clocks may be apart, as for tokens, in seconds.
const LEEWAY_S: u64 = 5;
/// Times between two looks for what has run out, in seconds.
const CLEAN_EVERY_S: u64 = 10;

/// Why a token is not exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeError {
    /// It was before, and its successor was shown.
    Replayed,
    /// The participant exchanged too many; seconds until there is room again, at most.
    TooMany(u64),
    /// Nothing more can be remembered; the same.
    Full(u64),
}

type Who = (SessionId, ParticipantId);

#[derive(Debug)]
struct Spent {
    who: Who,
    until: u64,
    /// A successor was shown.
    passed: bool,
}

#[derive(Debug, Default)]
struct Inside {
    spent: HashMap<String, Spent>,
    /// Successors that were not shown yet, and whose they are.
    awaited: HashMap<String, String>,
    each: HashMap<Who, u32>,
    cleaned: u64,
}

/// What was exchanged.
#[derive(Debug)]
pub(crate) struct Exchanges {
    inside: Mutex<Inside>,
    most: usize,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self { inside: Mutex::default(), most: MOST }
    }
}

impl Exchanges {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bearer of that token wants a fresh one, at that time in seconds.
    pub(crate) fn spend(&self, token: &Claims, now: u64) -> Result<(), ExchangeError> {
        let mut inside = self.inside();
        inside.clean(now);
        if let Some(spent) = inside.spent.get(&token.jti) {
            return if spent.passed { Err(ExchangeError::Replayed) } else { Ok(()) };
        }
        let until = token.exp.saturating_add(LEEWAY_S);
        let room_in = until.saturating_sub(now).max(1);
        if inside.spent.len() >= self.most {
            return Err(ExchangeError::Full(room_in));
        }
        let who = (token.session.clone(), token.sub.clone());
        let count = inside.each.entry(who.clone()).or_default();
        if *count >= EACH {
            return Err(ExchangeError::TooMany(room_in));
        }
        *count += 1;
        inside.spent.insert(token.jti.clone(), Spent { who, until, passed: false });
        Ok(())
    }

    /// The token with this id was given for the one with that.
    pub(crate) fn follow(&self, former: &str, fresh: &str) {
        let mut inside = self.inside();
        // As many as there are exchanges, which are bounded; those that were asked for again and again share the bound.
        if inside.awaited.len() < 2 * self.most {
            inside.awaited.insert(fresh.to_owned(), former.to_owned());
        }
    }

    /// A token with that id was shown and is good.
    pub(crate) fn shown(&self, jti: &str) {
        let mut inside = self.inside();
        if let Some(former) = inside.awaited.remove(jti)
            && let Some(spent) = inside.spent.get_mut(&former)
        {
            spent.passed = true;
        }
    }
}

impl Inside {
    fn clean(&mut self, now: u64) {
        if now < self.cleaned.saturating_add(CLEAN_EVERY_S) {
            return;
        }
        self.cleaned = now;
        self.spent.retain(|_, s| s.until >= now);
        let Self { spent, awaited, each, .. } = self;
        awaited.retain(|_, former| spent.contains_key(former));
        each.clear();
        for s in spent.values() {
            *each.entry(s.who.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::session::ids::RealmId;
    use trocar_proto::session::role::{Grade, Role};

    fn token(jti: &str, sub: &str) -> Claims {
        Claims {
            iss: "i".into(),
            aud: vec!["i".into()],
            sub: ParticipantId::new(sub).unwrap(),
            jti: jti.into(),
            iat: 1_000,
            nbf: 1_000,
            exp: 1_300,
            realm: RealmId::default(),
            session: SessionId::new("s").unwrap(),
            role: Role::Observer,
            grade: Grade::Observe,
            verbs: Vec::new(),
            cnf: None,
        }
    }

    #[test]
    fn a_token_is_exchanged_again_until_a_successor_of_it_is_shown_and_never_after() {
        let e = Exchanges::default();
        let first = token("1", "p");
        assert_eq!(e.spend(&first, 1_010), Ok(()));
        e.follow("1", "2");
        assert_eq!(e.spend(&first, 1_011), Ok(()), "the answer was lost");
        e.follow("1", "2b");
        e.shown("another");
        assert_eq!(e.spend(&first, 1_012), Ok(()), "the control: nobody's token");
        e.shown("2b");
        assert_eq!(e.spend(&first, 1_013), Err(ExchangeError::Replayed));
        e.shown("2b");
        assert_eq!(e.spend(&token("2b", "p"), 1_014), Ok(()), "the successor goes on");
        assert_eq!(e.spend(&first, 1_305), Err(ExchangeError::Replayed), "as long as the token could be shown");
    }

    #[test]
    fn what_has_run_out_is_forgotten_and_without_room_nothing_is_exchanged() {
        let e = Exchanges { most: 3, ..Exchanges::default() };
        for jti in ["1", "2", "3"] {
            assert_eq!(e.spend(&token(jti, jti), 1_000), Ok(()));
            e.follow(jti, &format!("after {jti}"));
        }
        assert_eq!(e.spend(&token("4", "4"), 1_100), Err(ExchangeError::Full(205)));
        assert_eq!(e.spend(&token("1", "1"), 1_100), Ok(()), "one that is known needs no room");
        let later = Claims { exp: 1_600, ..token("4", "4") };
        assert_eq!(e.spend(&later, 1_306), Ok(()));
        let inside = e.inside();
        assert_eq!((inside.spent.len(), inside.awaited.len(), inside.each.len()), (1, 0, 1));
    }

    #[test]
    fn one_participant_does_not_take_the_room_of_the_others() {
        let e = Exchanges::default();
        for n in 0..EACH {
            assert_eq!(e.spend(&token(&format!("{n}"), "greedy"), 1_000), Ok(()));
        }
        assert_eq!(e.spend(&token("more", "greedy"), 1_000), Err(ExchangeError::TooMany(305)));
        assert_eq!(e.spend(&token("one", "modest"), 1_000), Ok(()));
    }
}
