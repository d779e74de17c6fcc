//! The event WebSocket, one task for each socket: hello, then everything that changes, the clock, capture maps.
//!
//! Order within the task: what the server has to say before what the client says, so that an end is never delayed by a
//! chatty client. Each write has a time limit, and the socket's queue a bound (see [`crate::Limits::socket_queue`]).

use crate::accept::ConnectionSlot;
use crate::app::{App, clock_reply, wall_clock};
use crate::control;
use crate::error::SessionError;
use crate::guard::claims_of;
use crate::input::Names;
use crate::live::{ClockReport, Ending, Outbound};
use crate::name::clean;
use crate::problem::{ORIGIN, Refusal, SUBPROTOCOL, UPGRADE};
use crate::rate::Bucket;
use crate::realms::CameBy;
use crate::routes::SessionPath;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::http::header::{ORIGIN as ORIGIN_HEADER, UPGRADE as UPGRADE_HEADER};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_tungstenite::tungstenite;
use trocar_proto::session::clock::Offset;
use trocar_proto::session::event::{ClientEvent, ServerEvent};
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::WallMicros;

/// How often a silent client is pinged, and after how long without a sign of life its socket ends.
const PING_EVERY: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
/// How long a client has to answer our close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Bytes that wait in tungstenite for one socket before writes are refused: more than the largest welcome.
const WRITE_BUFFER: usize = 512 * 1024;

/// A close code (RFC 6455 section 7.4.1; 4000 and above are ours) and why, at most 123 bytes.
type Close = (u16, String);

/// `GET /v1/sessions/{session}/events`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/events", operation_id = "events", tag = "events",
    params(
        SessionPath,
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "trocar.v1"),
    ),
    responses(
        (status = 101, description = "WebSocket: JSON text messages, `ClientEvent` up and `ServerEvent` down"),
        (status = 400, description = "subprotocol, path-invalid"),
        (status = 403, description = "origin"),
        (status = 426, description = "upgrade-required"),
    )
)]
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    slot: Option<Extension<ConnectionSlot>>,
    came_by: Option<Extension<CameBy>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    if let Some(origin) = headers.get(ORIGIN_HEADER) {
        let allowed = origin.to_str().is_ok_and(|o| app.origins.iter().any(|a| a == o));
        if !allowed {
            return Err(Refusal::new(ORIGIN, "the page is not one of this server").field("Origin"));
        }
    }
    let upgrade = upgrade.map_err(|e| Refusal::new(UPGRADE, e.body_text()).field("Upgrade"));
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([trocar_proto::session::event::SUBPROTOCOL]),
        Err(refusal) => {
            let mut response = refusal.into_response();
            response.headers_mut().insert(UPGRADE_HEADER, axum::http::HeaderValue::from_static("websocket"));
            return Ok(response);
        }
    };
    if upgrade.selected_protocol().is_none() {
        return Err(Refusal::new(SUBPROTOCOL, "offer trocar.v1").field("Sec-WebSocket-Protocol"));
    }
    let limit = app.limits.socket_message_bytes;
    let upgrade = upgrade.max_message_size(limit).max_frame_size(limit).max_write_buffer_size(WRITE_BUFFER);
    Ok(upgrade.on_upgrade(move |socket| async move {
        app.figures.sockets.inc();
        serve(&app, path.session, came_by.as_deref(), socket).await;
        app.figures.sockets.dec();
        // The connection counts until here.
        drop(slot);
    }))
}

/// One socket from its hello to its end.
async fn serve(app: &App, session: SessionId, came_by: Option<&CameBy>, mut socket: WebSocket) {
    let (participant, outbound) = match hello(app, &session, came_by, &mut socket).await {
        Ok(attached) => attached,
        Err(close) => return end(app, socket, close).await,
    };
    let serial = outbound.serial;
    let mut rest = Conversation::new(app, &session, &participant, outbound);
    let close = rest.run(&mut socket).await;
    app.live().detach(app.now(), &session, &participant, serial);
    if let Some(close) = close {
        end(app, socket, close).await;
    }
}

/// Waits for the hello, checks its token as any other, and attaches the socket.
async fn hello(
    app: &App,
    session: &SessionId,
    came_by: Option<&CameBy>,
    socket: &mut WebSocket,
) -> Result<(ParticipantId, Outbound), Close> {
    let deadline = Instant::now() + app.limits.hello_timeout;
    let text = loop {
        match timeout_at(deadline, socket.recv()).await {
            Err(_) => return Err((4408, "no hello in time".to_owned())),
            Ok(Some(Ok(Message::Text(text)))) => break text,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(_)) | None) => return Err((1003, "the first message has to be a hello".to_owned())),
            Ok(Some(Err(e))) => return Err(close_for(&e)),
        }
    };
    let Ok(ClientEvent::Hello { token }) = serde_json::from_str(&text) else {
        return Err((1008, "the first message has to be a hello".to_owned()));
    };
    let refuse = |refusal: Refusal, code: u16| {
        app.record_denial("socket-denied", refusal.name());
        (code, format!("{}: {}", refusal.name(), refusal.detail()))
    };
    let claims = claims_of(app, &token, came_by).map_err(|r| {
        let code = if r.status() == 403 { 4403 } else { 4401 };
        refuse(r, code)
    })?;
    if &claims.session != session {
        return Err((4403, "token-session: the token is for another session".to_owned()));
    }
    let attached = app.live().attach(wall_clock(), session, &claims.sub);
    app.gates.listened.notify_one();
    attached.map(|outbound| (claims.sub, outbound)).map_err(|e| refuse(e.into(), 4403))
}

/// A socket after its hello.
struct Conversation<'a> {
    app: &'a App,
    session: &'a SessionId,
    participant: &'a ParticipantId,
    outbound: Outbound,
    pings: Interval,
    heard: Instant,
    messages: Bucket,
    probes: Bucket,
}

impl<'a> Conversation<'a> {
    fn new(app: &'a App, session: &'a SessionId, participant: &'a ParticipantId, outbound: Outbound) -> Self {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let messages = Bucket::full(app.now(), app.limits.socket_messages);
        let probes = Bucket::full(app.now(), control::PROBE_RATE);
        Self { app, session, participant, outbound, pings, heard: Instant::now(), messages, probes }
    }

    /// Until one side ends it. The answer is how to close; none where the connection is gone already.
    async fn run(&mut self, socket: &mut WebSocket) -> Option<Close> {
        loop {
            let step = tokio::select! {
                biased;
                // 1. What the server has to say.
                queued = self.outbound.queue.recv() => match queued {
                    // What is still queued for a client that does not read would only hold its end up.
                    Some(_) if self.outbound.ending.get() == Some(&Ending::Slow) => Err(Some(self.ending())),
                    Some(text) => self.send(socket, Message::Text(text)).await,
                    None => Err(Some(self.ending())),
                },
                // 2. Is the other side still there?
                _ = self.pings.tick() => self.ping(socket).await,
                // 3. What the client says.
                received = socket.recv() => self.handle(socket, received).await,
            };
            if let Err(close) = step {
                return close;
            }
        }
    }

    async fn ping(&mut self, socket: &mut WebSocket) -> Result<(), Option<Close>> {
        if self.heard.elapsed() > SILENCE {
            self.app.live().count_ended("silent");
            return Err(None);
        }
        self.send(socket, Message::Ping(axum::body::Bytes::new())).await
    }

    /// Sends within the time limit; a client that does not read is cut off.
    async fn send(&mut self, socket: &mut WebSocket, message: Message) -> Result<(), Option<Close>> {
        match timeout(self.app.limits.socket_stall, socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => {
                self.app.live().count_ended("stalled");
                Err(None)
            }
        }
    }

    async fn handle(
        &mut self,
        socket: &mut WebSocket,
        received: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Option<Close>> {
        let t1 = wall_clock();
        let message = match received {
            None | Some(Ok(Message::Close(_))) => return Err(None),
            Some(Err(e)) => return Err(Some(close_for(&e))),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        if self.messages.take(self.app.now(), self.app.limits.socket_messages).is_err() {
            self.app.live().count_ended("flood");
            return Err(Some((1008, "too many messages".to_owned())));
        }
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            _ => return Err(Some((1003, "messages are JSON text".to_owned()))),
        };
        match serde_json::from_str::<ClientEvent>(&text) {
            Ok(ClientEvent::Clock { t0 }) => match serde_json::to_string(&clock_reply(t0, t1)) {
                Ok(reply) => self.send(socket, Message::Text(Utf8Bytes::from(reply))).await,
                Err(_) => Err(Some((1011, "no reply".to_owned()))),
            },
            // Viewers reckon with it: what no honest clock says does not reach them.
            Ok(ClientEvent::ClockReport { offset_us, uncertainty_us })
                if !(Offset { offset_us, uncertainty_us }).is_plausible() =>
            {
                Err(Some((
                    1008,
                    "clock_report: at most 10 years of offset and 60 s of uncertainty are right".to_owned(),
                )))
            }
            Ok(ClientEvent::ClockReport { offset_us, uncertainty_us }) => {
                let report = ClockReport { offset_us, uncertainty_us };
                let reported = self.app.live().report_clock(self.session, self.participant, report);
                reported.map_err(|e| Some((4403, e.to_string())))
            }
            Ok(ClientEvent::Chat { text }) => self.chat(socket, t1, &text).await,
            // Whose leg it is, and whether anything waits for the word, the traces know.
            Ok(ClientEvent::Shown { leg }) => {
                self.app.live().trace(|t, now| t.leg_shown(now, &leg, self.participant));
                Ok(())
            }
            Ok(ClientEvent::ControlProbe { nonce }) => self.probe(&nonce),
            Ok(ClientEvent::ControlRequest { set, reason }) => {
                let asked = control::request(self.app, self.session, self.participant, (set, &reason));
                self.answer(socket, "control_request", asked).await
            }
            Ok(ClientEvent::ControlEstop { reason }) => {
                let asked = control::estop(self.app, self.session, self.participant, &reason);
                self.answer(socket, "control_estop", asked).await
            }
            Ok(ClientEvent::Hello { .. }) => Err(Some((1008, "one hello is enough".to_owned()))),
            Err(e) => Err(Some((1008, format!("message cannot be used: {e}")))),
        }
    }

    /// Passes on what the client wrote. What comes too often is refused, to this socket alone.
    async fn chat(&mut self, socket: &mut WebSocket, at: WallMicros, text: &str) -> Result<(), Option<Close>> {
        let told = self.app.live().chat((self.app.now(), at), self.session, self.participant, text);
        let wait_s = match told {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(wait_s)) => wait_s,
            Err(e @ SessionError::Invalid { .. }) => return Err(Some((1008, e.to_string()))),
            Err(e) => return Err(Some((4403, e.to_string()))),
        };
        let detail = format!("too many messages: the next one can be sent in {wait_s} s");
        self.answer(socket, "chat", Ok(Err(detail))).await
    }

    /// Passes a probe on, as far as it does not come too fast.
    fn probe(&mut self, nonce: &str) -> Result<(), Option<Close>> {
        let Some(nonce) = control::nonce(nonce) else {
            return Err(Some((1008, "control_probe: a nonce of 16 hexadecimal digits is right".to_owned())));
        };
        let is_slow = self.probes.take(self.app.now(), control::PROBE_RATE).is_ok();
        if !is_slow || !self.app.gates.probe(self.session, nonce) {
            self.app.figures.control_probes_dropped.inc();
        }
        Ok(())
    }

    /// Tells the client where something was not done, and why; to this socket alone.
    async fn answer(
        &mut self,
        socket: &mut WebSocket,
        what: &str,
        done: Result<Result<(), String>, SessionError>,
    ) -> Result<(), Option<Close>> {
        let detail = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(detail)) => detail,
            Err(e) => return Err(Some((4403, e.to_string()))),
        };
        match serde_json::to_string(&ServerEvent::Refused { what: what.to_owned(), detail }) {
            Ok(text) => self.send(socket, Message::Text(Utf8Bytes::from(text))).await,
            Err(_) => Err(Some((1011, "no reply".to_owned()))),
        }
    }

    fn ending(&self) -> Close {
        let (code, reason) = match self.outbound.ending.get() {
            Some(Ending::Slow) => {
                self.app.live().count_ended("slow");
                (1008, "the client does not read fast enough")
            }
            Some(Ending::Removed) => (4403, "participant-gone"),
            Some(Ending::Going) | None => (1001, "going away"),
        };
        (code, reason.to_owned())
    }
}

/// Closes politely: a close frame, and a moment for the other side's.
async fn end(app: &App, mut socket: WebSocket, (code, reason): Close) {
    // A close frame holds 125 bytes, two of them the code.
    let mut reason = clean(&reason, 120);
    while reason.len() > 123 {
        reason.pop();
    }
    let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if !matches!(timeout(app.limits.socket_stall, socket.send(frame)).await, Ok(Ok(()))) {
        return;
    }
    // Reads until the other side closes, so that it sees our frame before the connection is reset.
    let _ = timeout(CLOSE_WAIT, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
}

/// The close code for a broken message.
fn close_for(error: &axum::Error) -> Close {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<tungstenite::Error>());
    match cause {
        Some(tungstenite::Error::Capacity(_)) => (1009, "the message is too large".to_owned()),
        Some(tungstenite::Error::Utf8(_)) => (1007, "text has to be UTF-8".to_owned()),
        _ => (1002, "the message cannot be read".to_owned()),
    }
}
