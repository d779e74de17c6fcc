//! The live half of the page: the model goes out, signs of life come in. The page sends one every 200 ms, out of the loop that paints it,
//! so that a tab in the background sends none: nobody looks at it.

use super::super::model::{Control, Model};
use super::Page;
use super::guard::Refused;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{interval, timeout};

/// Live pages at a time.
pub(super) const MOST: usize = 4;
/// For the secret, which is the first message.
const SECRET_TIME: Duration = Duration::from_secs(2);
/// A page that said nothing for so long is gone; it says it again when it is back.
const SILENCE: Duration = Duration::from_secs(10);
/// A page that does not read for so long is closed: what it would read then is old.
const STALL: Duration = Duration::from_secs(1);
/// Between two models.
const EVERY: Duration = Duration::from_millis(100);
/// Signs of life that come faster than this do not count.
const BEAT: Duration = Duration::from_millis(100);
/// Longest message of a page, in bytes.
const MOST_MESSAGE: usize = 1_024;

/// The page's first word.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    secret: String,
}

/// A sign of life: the page is painted and visible, and what it shows is not old.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alive {
    /// Counted by the page, which tells the age of its picture by the newest number that is answered.
    alive: u64,
    /// Whether what it shows is fresh.
    fresh: bool,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    answers: u64,
    model: &'a Model,
}

pub(super) async fn live(State(page): State<Arc<Page>>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(place) = page.lives.clone().try_acquire_owned() else {
        return super::guard::refuse(&page, Refused::Full);
    };
    let upgrade = upgrade
        .max_message_size(MOST_MESSAGE)
        .max_frame_size(MOST_MESSAGE)
        .write_buffer_size(0)
        .max_write_buffer_size(256 * 1024);
    upgrade
        .on_upgrade(move |socket| async move {
            if let Some(socket) = admitted(&page, socket).await {
                talk(&page, socket).await;
            }
            drop(place);
        })
        .into_response()
}

/// The socket, where its first word is the secret.
async fn admitted(page: &Page, mut socket: WebSocket) -> Option<WebSocket> {
    let first = timeout(SECRET_TIME, socket.recv()).await;
    let hello = match &first {
        Ok(Some(Ok(Message::Text(text)))) => serde_json::from_str::<Hello>(text).ok(),
        _ => None,
    };
    if hello.is_some_and(|h| page.knows(h.secret.as_bytes())) {
        return Some(socket);
    }
    page.shared.refusals.count(Refused::Secret);
    None
}

async fn talk(page: &Page, mut socket: WebSocket) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut answers, mut heard, mut beat) = (0, Instant::now(), None::<Instant>);
    while !page.shared.is_over() && heard.elapsed() < SILENCE {
        tokio::select! {
            came = socket.recv() => {
                let Some(Ok(message)) = came else { return };
                let Message::Text(text) = message else { continue };
                let Ok(alive) = serde_json::from_str::<Alive>(&text) else {
                    return page.shared.refusals.count(Refused::Form);
                };
                (answers, heard) = (alive.alive, Instant::now());
                tick.reset_immediately(); // the age on the page is counted from when it sent this (HO-V-001)
                let due = beat.is_none_or(|at| at.elapsed() >= BEAT);
                // A picture of a core that does not run is none to watch an expert on.
                if alive.fresh && due && page.shared.model().control != Control::Unknown {
                    beat = Some(Instant::now());
                    page.shared.hand.alive();
                }
            }
            _ = tick.tick() => {
                let model = page.shared.model();
                let Ok(text) = serde_json::to_string(&Shown { answers, model: &model }) else { return };
                if !matches!(timeout(STALL, socket.send(Message::Text(text.into()))).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}
