//! One channel: from a tunnel that a relay hands over to its end.

use super::state::{Arrival, SIGNALING, Shared, count, who};
use crate::core::{Event, Who};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_control::channel::{self, Channel, ChannelError, Reader, SharedDedupe};
use trocar_control::transport::Tunnel;
use trocar_control::trust::PeerIdentity;
use trocar_proto::control::Index;
use trocar_proto::handover::gate::{Input, Verified};
use trocar_proto::handover::message::{ToGate, Token};
use trocar_proto::handover::types::ChannelId;

/// Roles that may have a channel.
const ROLES: [&str; 2] = ["station", SIGNALING];
/// Reliable messages of one channel per second, after a burst of as many. Who sends more is read more slowly.
const MESSAGES_PER_SECOND: u32 = 100;

/// The TLS handshake.
pub(super) async fn handshake(shared: &Shared, tunnel: Tunnel) -> Option<Channel<Tunnel>> {
    let trust = shared.trust();
    match channel::accept(tunnel, &shared.identity, &trust, &ROLES).await {
        Ok(channel) => Some(channel),
        Err(e) => {
            tracing::info!(error = %e, "a tunnel became no channel");
            count(&shared.counters.refused);
            None
        }
    }
}

/// From the handshake on.
pub(super) async fn run(shared: Arc<Shared>, relay: usize, party: Index, channel: Channel<Tunnel>) {
    let Ok(keys) = channel.seal_keys() else { return };
    let (peer, tunnel) = (Arc::new(channel.peer.clone()), channel.tunnel);
    let (mut reader, writer) = channel.start::<ToGate>(SharedDedupe::default());
    let arrival = Arrival { relay, party, peer: Arc::clone(&peer), tunnel, keys, writer: writer.clone() };
    let Some(id) = shared.open(arrival) else {
        tracing::info!(peer = %peer.name, "a channel was refused: too many, or revoked");
        count(&shared.counters.refused);
        writer.close();
        return;
    };
    drop(writer);
    tracing::info!(channel = id.0, peer = %peer.name, certificate = %peer.certificate, serial = %peer.serial,
        issuer = %peer.issuer, "channel open");
    let ended = read(&shared, id, &peer, &mut reader).await;
    tracing::info!(channel = id.0, why = %ended, "channel closed");
    shared.gone(id);
}

async fn read(
    shared: &Shared,
    id: ChannelId,
    peer: &PeerIdentity,
    reader: &mut Reader<ToGate, Tunnel>,
) -> ChannelError {
    let mut pace = Pace::new(Instant::now());
    loop {
        let (number, message) = match reader.next().await {
            Ok(next) => next,
            Err(e) => return e,
        };
        if let Some(wait) = pace.next(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        let binds = if let ToGate::Hello { binds, .. } = &message { *binds } else { None };
        if !shared.is_first(id, number, binds) {
            continue;
        }
        let token = match &message {
            ToGate::Hello { token, .. } | ToGate::Accept { token, .. } => verified(shared, peer, token),
            _ => None,
        };
        if let (ToGate::Hello { .. }, Some(t)) = (&message, &token) {
            let known = (Some(t.person.clone()), Some(t.role), Some(t.grade));
            let named = Who { person: known.0, role: known.1, grade: known.2, ..who(peer) };
            shared.tell(Event::Who(id, named, peer.name.role == SIGNALING));
        }
        let channel = if matches!(message, ToGate::Accept { .. }) { shared.first_of_station(id) } else { id };
        shared.tell(Event::Input(Input::Message { channel, message, token }));
    }
}

/// What a station's token says. Signaling shows none that counts: it is who its certificate says.
fn verified(shared: &Shared, peer: &PeerIdentity, token: &Token) -> Option<Verified> {
    if peer.name.role == SIGNALING {
        return None;
    }
    match shared.tokens.verify(token.as_str(), peer.certificate) {
        Ok(verified) => Some(verified),
        Err(e) => {
            tracing::info!(peer = %peer.name, error = %e, "a token was refused");
            count(&shared.counters.bad_tokens);
            None
        }
    }
}

/// A bucket of messages: how long to wait with the next one.
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { left: MESSAGES_PER_SECOND, since: now }
    }

    fn next(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.duration_since(self.since);
        if passed >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => Some(Duration::from_secs(1).saturating_sub(passed)),
        }
    }
}
