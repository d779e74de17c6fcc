//! Signed webhooks (Standard Webhooks 1.0): other systems are called when somebody joins or leaves, when a feed comes,
//! goes or stands still, and when a session opens or closes.
//!
//! Loss policy: each receiver has a queue of [`QUEUE`] messages and is called in order, one call at a time. What comes
//! while its queue is full is dropped; so is a message whose last attempt fails, and what is queued when the server stops.
//! All but the last is counted in `trocar_signaling_webhooks_dropped`.

mod courier;

pub(crate) use courier::Courier;

use crate::config::{ConfigError, Webhook};
use crate::figures::{Figures, ReasonLabels};
use crate::secret;
use crate::store::StoredParticipant;
use axum::http::Uri;
use serde_json::{Value, json};
use std::net::IpAddr;
use tokio::sync::mpsc;
use trocar_proto::session::api::{FeedInfo, ParticipantInfo};
use trocar_proto::session::ids::SessionId;

/// Messages that may wait for one receiver.
pub(crate) const QUEUE: usize = 256;

/// Everything that receivers may be called on.
pub const WEBHOOK_EVENTS: [&str; 9] = [
    "session.opened",
    "session.closed",
    "participant.joined",
    "participant.left",
    "break_glass.joined",
    "feed.announced",
    "feed.live",
    "feed.stalled",
    "feed.removed",
];

/// Something that happened. Ids, names and roles; no address, no secret, nothing from a picture.
#[derive(Debug)]
pub(crate) struct Happening {
    kind: &'static str,
    data: Value,
}

impl Happening {
    /// A session was opened or closed.
    pub(crate) fn session(kind: &'static str, session: &SessionId, title: &str) -> Self {
        Self { kind, data: json!({"session": session, "title": title}) }
    }

    /// A participant came or left.
    pub(crate) fn participant(kind: &'static str, session: &SessionId, who: &ParticipantInfo) -> Self {
        let data = json!({
            "session": session, "participant": who.participant, "name": who.name, "role": who.role, "realm": who.realm,
            "guest": who.guest
        });
        Self { kind, data }
    }

    /// Somebody came in without the login that was asked for. Why is for the session and the audit chain: it is free text.
    pub(crate) fn break_glass(joined: &StoredParticipant) -> Self {
        let data = json!({
            "session": joined.session, "participant": joined.participant, "name": joined.name, "role": joined.role,
            "realm": joined.realm, "until": joined.broken_glass.as_ref().map(|glass| glass.until)
        });
        Self { kind: "break_glass.joined", data }
    }

    /// A feed was announced or removed, or its packets come or cease.
    pub(crate) fn feed(kind: &'static str, session: &SessionId, feed: &FeedInfo) -> Self {
        let d = &feed.descriptor;
        let data = json!({
            "session": session, "feed": d.feed, "publisher": feed.publisher, "kind": d.kind, "purpose": d.purpose,
            "source": d.source, "view": d.view
        });
        Self { kind, data }
    }
}

/// A message on its way: the same id and the same body at each attempt.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    id: String,
    body: String,
}

#[derive(Debug)]
struct Receiver {
    events: Vec<String>,
    queue: mpsc::Sender<Message>,
}

/// The ways to all receivers. The default has none.
#[derive(Debug, Default)]
pub(crate) struct Hooks(Vec<Receiver>);

impl Hooks {
    /// One queue for each receiver, and whoever empties it.
    ///
    /// # Errors
    /// [`ConfigError`] where the system's trust list cannot be used.
    pub(crate) fn open(webhooks: &[Webhook]) -> Result<(Self, Vec<Courier>), ConfigError> {
        let mut hooks = Vec::new();
        let mut couriers = Vec::new();
        for webhook in webhooks {
            let (queue, messages) = mpsc::channel(QUEUE);
            hooks.push(Receiver { events: webhook.events.clone(), queue });
            couriers.push(Courier::new(webhook, messages)?);
        }
        Ok((Self(hooks), couriers))
    }

    /// Queues a message for each receiver that wants it. Quick and not blocking.
    pub(crate) fn call(&self, figures: &Figures, happening: Happening) {
        let wanted = |r: &&Receiver| r.events.is_empty() || r.events.iter().any(|e| e == happening.kind);
        let mut receivers = self.0.iter().filter(wanted).peekable();
        if receivers.peek().is_none() {
            return;
        }
        let time = crate::app::wall_clock();
        let body = json!({"type": happening.kind, "time": time, "data": happening.data}).to_string();
        for receiver in receivers {
            // Without randomness there are no tokens either: nothing happens then that would be told here.
            let Ok(id) = secret::message_id() else { continue };
            if receiver.queue.try_send(Message { id, body: body.clone() }).is_err() {
                figures.webhooks_dropped.get_or_create(&ReasonLabels { reason: "queue" }).inc();
            }
        }
    }
}

/// Checks what can be known about a receiver before it is called.
pub(crate) fn check(webhook: &Webhook) -> Result<(), ConfigError> {
    let bad = |field, expected| Err(ConfigError { field, expected });
    let uri: Option<Uri> = webhook.url.parse().ok();
    let host = |u: &Uri| u.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let is_loopback = |u: &Uri| host(u) == "localhost" || host(u).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_fit = |u: &Uri| match u.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback(u),
        _ => false,
    };
    let fits = uri
        .as_ref()
        .is_some_and(|u| is_fit(u) && !host(u).is_empty() && u.authority().is_some_and(|a| !a.as_str().contains('@')));
    if !fits || webhook.url.contains('#') {
        return bad(
            "webhook.url",
            "https://HOST[:PORT]/PATH without user name; http only where HOST is a loopback address",
        );
    }
    if !(24..=64).contains(&webhook.secret.len()) {
        return bad("webhook.secret", "24 to 64 bytes, written as whsec_ and their base64");
    }
    if !webhook.events.iter().all(|e| WEBHOOK_EVENTS.contains(&e.as_str())) {
        return bad(
            "webhook.events",
            "session.opened, session.closed, participant.joined, participant.left, break_glass.joined, feed.announced, \
             feed.live, feed.stalled, feed.removed",
        );
    }
    Ok(())
}
