//! Which sessions' gates are spoken with: found, lost, found again.

use super::link::Dialer;
use super::talk::converse;
use crate::app::App;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use trocar_proto::session::ids::SessionId;

/// How often it is looked at who listens where.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a gate stays linked when nobody listens any more.
const LINGER: Duration = Duration::from_secs(30);
/// First and longest pause between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(4)];

/// Keeps a link for each session in which somebody listens.
pub(crate) async fn manage(app: Arc<App>, dialer: Arc<dyn Dialer>) {
    let mut keepers = JoinSet::new();
    let mut running: BTreeMap<SessionId, (AbortHandle, Instant)> = BTreeMap::new();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = app.gates.listened.notified() => {}
        }
        let now = Instant::now();
        for session in app.live().listened_sessions() {
            let mut spawn = || keepers.spawn(keep(app.clone(), dialer.clone(), session.clone()));
            running.entry(session.clone()).or_insert_with(|| (spawn(), now)).1 = now;
        }
        running.retain(|_, (keeper, wanted)| {
            let stays = now.duration_since(*wanted) < LINGER;
            if !stays {
                keeper.abort();
            }
            stays
        });
        while keepers.try_join_next().is_some() {}
    }
}

/// Dials for ever.
async fn keep(app: Arc<App>, dialer: Arc<dyn Dialer>, session: SessionId) {
    let [mut pause, longest] = PAUSES;
    let mut told = String::new();
    loop {
        match dialer.dial(&session).await {
            Ok(mut links) => {
                told.clear();
                pause = (pause * 2).min(longest);
                while let Some(first) = links.recv().await {
                    tracing::info!(%session, "linked to the gate");
                    converse(&app, &session, first, &mut links).await;
                    tracing::warn!(%session, "the gate is lost");
                    pause = PAUSES[0];
                }
            }
            Err(error) => {
                if error != told {
                    tracing::warn!(%session, error, "no way to a gate");
                    told = error;
                }
                pause = (pause * 2).min(longest);
            }
        }
        sleep(pause).await;
    }
}
