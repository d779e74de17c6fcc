//! Measurements of the line to one of several relays. Pictures of an operation may go through any of them, whichever has the rendezvous of its
//! gates: while somebody operates through one relay, the lines of the others are not measured either.
//!
//! A relay ends by itself what signaling does not say again may go on, so that a signaling that is gone, or that cannot reach it, leaves
//! nothing running.

use super::places::Member;
use super::{Inner, Relays};
use crate::admission::Answer;
use crate::link_tests::{LinkTests, NoLinkTest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::link_test::{LinkTestBegin, LinkTestGrant, LinkTestKeep, LinkTestRefused};

/// How often a relay is told that what it measures may go on.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A measurement begins and ends within what was granted and so much more.
const MORE: Duration = Duration::from_secs(60);

/// What the tasks share that look after measurements.
pub(super) struct Kept {
    /// Relays through which somebody operates, in words.
    operated: watch::Sender<BTreeMap<usize, String>>,
    /// For each relay, until when something that was let in there may run.
    until: Vec<watch::Sender<Option<Instant>>>,
}

impl Kept {
    pub(super) fn new(relays: usize) -> Self {
        let until = (0..relays).map(|_| watch::channel(None).0).collect();
        Self { operated: watch::channel(BTreeMap::new()).0, until }
    }

    #[cfg(test)]
    pub(super) fn operated(&self) -> watch::Receiver<BTreeMap<usize, String>> {
        self.operated.subscribe()
    }

    /// Who operates where changed, perhaps.
    pub(super) fn note_operated(&self, operated: BTreeMap<usize, String>) {
        self.operated.send_if_modified(|before| {
            let changed = *before != operated;
            *before = operated;
            changed
        });
    }

    /// What is said to a relay: of the others alone, for it looks at its own rendezvous itself.
    fn said_to(&self, member: usize) -> LinkTestKeep {
        let operated = self.operated.borrow();
        LinkTestKeep { operated: operated.iter().find(|(other, _)| **other != member).map(|(_, name)| name.clone()) }
    }
}

/// Which relay is measured.
pub(super) fn choose(members: &[Member], name: Option<&str>) -> Result<usize, NoLinkTest> {
    let answers = |m: &Member| m.hello.as_ref().is_some_and(|h| h.link_tests);
    if let Some(name) = name {
        let there = || members.iter().map(|m| m.name.clone()).collect();
        let found = members.iter().position(|m| m.name == name);
        return found.ok_or_else(|| NoLinkTest::unknown(name, there()));
    }
    // Up or not: which one is measured does not depend on which one is away.
    let answering: Vec<usize> = members.iter().enumerate().filter(|(_, m)| answers(m)).map(|(i, _)| i).collect();
    match answering.as_slice() {
        [] => Err(NoLinkTest::Refused { relay: None, why: LinkTestRefused::Unused.into() }),
        [one] => Ok(*one),
        _ => Err(NoLinkTest::Several(answering.iter().filter_map(|i| Some(members.get(*i)?.name.clone())).collect())),
    }
}

impl LinkTests for Relays {
    fn relays(&self) -> Vec<String> {
        self.inner.places().members.iter().map(|m| m.name.clone()).collect()
    }

    fn begin(&self, relay: Option<String>, realm: RealmId) -> Answer<'_, Result<LinkTestGrant, NoLinkTest>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.begin_link_test(relay.as_deref(), realm).await })
    }
}

impl Inner {
    async fn begin_link_test(&self, relay: Option<&str>, realm: RealmId) -> Result<LinkTestGrant, NoLinkTest> {
        let (member, name, is_up) = {
            let places = self.places();
            let member = choose(&places.members, relay)?;
            let found = places.members.get(member);
            (member, found.map(|m| m.name.clone()), found.is_some_and(Member::is_up))
        };
        let refused = |why| NoLinkTest::Refused { relay: name.clone(), why };
        if !is_up {
            return Err(refused(AdmitError::Unavailable));
        }
        let asked = LinkTestBegin { realm, others: self.kept.said_to(member) };
        let grant: LinkTestGrant = self.ask(member, "begin-link-test", &asked).await.map_err(refused)?;
        let longest = Duration::try_from_secs_f64(grant.seconds_max).unwrap_or(MORE) + MORE;
        if let Some(until) = self.kept.until.get(member) {
            until.send_replace(Some(Instant::now() + longest));
        }
        Ok(LinkTestGrant { relay: name, ..grant })
    }

    /// Tells one relay whether what it measures may go on, for as long as it may measure, and at once when that changes.
    pub(super) async fn keep_link_tests(self: Arc<Self>, member: usize) {
        let Some(mut until) = self.kept.until.get(member).map(watch::Sender::subscribe) else { return };
        let mut operated = self.kept.operated.subscribe();
        loop {
            if until.borrow_and_update().is_none_or(|until| until <= Instant::now()) {
                if until.changed().await.is_err() {
                    return;
                }
                continue;
            }
            operated.mark_unchanged();
            let said = self.kept.said_to(member);
            if let Err(error) = self.ask::<()>(member, "keep-link-test", &said).await {
                tracing::warn!(?said, %error, "the relay was not told whether its line may be measured");
            }
            tokio::select! {
                () = sleep(KEEP_EVERY) => {}
                _ = operated.changed() => {}
                _ = until.changed() => {}
            }
        }
    }
}
