//! The event WebSocket: what happens in the session, and the clock exchange. Comes back by itself.

use super::api::{Api, wall_now};
use super::tls::https_config;
use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use trocar_proto::session::clock::{ClockFilter, Exchange, Offset};
use trocar_proto::session::event::{ClientEvent, SUBPROTOCOL, ServerEvent};
use trocar_proto::session::ids::LegId;
use trocar_proto::units::{Micros, WallMicros};

/// Events that wait for the reader. Loss policy: reading the socket waits, and signaling drops or closes.
const EVENTS: usize = 256;
/// First pictures that signaling is to be told of. Loss policy: one more is not told, and its trace ends without.
const SHOWN: usize = 8;
/// The clock is asked for this often.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);
/// A socket that does not open, or on which no clock reply comes, for this long is lost: TCP alone would notice a peer that
/// is gone without a word after minutes only.
const REPLY_WITHIN: Duration = Duration::from_secs(5);
/// A wall clock that leaves the monotonic one by more than this, in microseconds, was set. Slewing moves both alike, so
/// that between them nothing is left to expect but how long the two take to be read.
const STEP_US: u64 = 20_000;
/// First and longest wait before the socket is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// The socket's two outputs.
pub(crate) struct Events {
    /// What signaling says, clock replies left out. `None` says that the socket was lost and is being opened again.
    pub(crate) events: mpsc::Receiver<Option<ServerEvent>>,
    /// Server clock minus ours; none while it is unknown: before the first exchange, without a socket, after our clock was
    /// set.
    pub(crate) clock: watch::Receiver<Option<Offset>>,
    shown: mpsc::Sender<LegId>,
    task: tokio::task::JoinHandle<()>,
}

/// Tells signaling, once, that a leg's first picture is on the screen.
#[derive(Debug)]
pub(crate) struct FirstShown {
    leg: LegId,
    shown: mpsc::Sender<LegId>,
}

impl FirstShown {
    /// It is, now. Never waits.
    pub(crate) fn tell(self) {
        if self.shown.try_send(self.leg).is_err() {
            tracing::debug!("signaling is not told of the first picture");
        }
    }
}

impl Events {
    /// What the first picture of a leg of ours is told by.
    pub(crate) fn first_shown(&self, leg: LegId) -> FirstShown {
        FirstShown { leg, shown: self.shown.clone() }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the socket and keeps it open. `report` makes a publisher's offset known to signaling.
pub(crate) fn open(api: Api, trust: Vec<CertificateDer<'static>>, report: bool) -> Events {
    let (sender, events) = mpsc::channel(EVENTS);
    let (clock_out, clock) = watch::channel(None);
    let (shown, mut shown_legs) = mpsc::channel(SHOWN);
    let task = tokio::spawn(async move {
        let origin = Instant::now();
        let mut wait = BACKOFF.0;
        while !sender.is_closed() {
            let began = Instant::now();
            let session = Session { api: &api, trust: &trust, report, origin, sender: &sender, clock: &clock_out };
            if let Err(error) = session.run(&mut shown_legs).await {
                tracing::info!(error = format!("{error:#}"), "event socket");
            }
            // Before the reader is told, who may be slow to hear: nothing checks the offset any more.
            clock_out.send_replace(None);
            if sender.send(None).await.is_err() {
                return;
            }
            wait = if began.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            tokio::time::sleep(wait).await;
        }
    });
    Events { events, clock, shown, task }
}

struct Session<'a> {
    api: &'a Api,
    trust: &'a [CertificateDer<'static>],
    report: bool,
    origin: Instant,
    sender: &'a mpsc::Sender<Option<ServerEvent>>,
    clock: &'a watch::Sender<Option<Offset>>,
}

impl Session<'_> {
    /// One connection, from hello to its end.
    async fn run(&self, shown: &mut mpsc::Receiver<LegId>) -> anyhow::Result<()> {
        let mut socket = timeout(REPLY_WITHIN, self.open()).await.context("signaling does not answer")??;
        // Not kept from one socket to the next: behind the same name may be another server now, with another clock.
        let mut clock = Clock::new(self.read());
        // The message is the moment: what was shown while there was no socket is not told later.
        while shown.try_recv().is_ok() {}
        let mut traced = false;
        let mut tick = tokio::time::interval(CLOCK_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let reading = self.read();
                    if clock.handle_reading(reading) {
                        self.tell_step();
                    }
                    if reading.at.since(clock.heard) > micros(REPLY_WITHIN) {
                        bail!("no clock reply for {} s", REPLY_WITHIN.as_secs());
                    }
                    if let Some(t0) = clock.poll_question(reading) {
                        socket.send(text(&ClientEvent::Clock { t0 })?).await?;
                    }
                }
                Some(leg) = shown.recv() => if traced {
                    socket.send(text(&ClientEvent::Shown { leg })?).await?;
                },
                message = socket.next() => {
                    let event = match message.context("closed")?? {
                        Message::Text(t) => serde_json::from_str::<ServerEvent>(&t)?,
                        Message::Close(frame) => bail!("closed by signaling: {frame:?}"),
                        _ => continue,
                    };
                    traced |= matches!(event, ServerEvent::Welcome { traced: true, .. });
                    let ServerEvent::ClockReply { t0, t1, t2 } = event else {
                        if self.sender.send(Some(event)).await.is_err() {
                            return Ok(());
                        }
                        continue;
                    };
                    if let Some(report) = self.handle_reply(&mut clock, (t0, t1, t2)) {
                        socket.send(text(&report)?).await?;
                    }
                }
            }
        }
    }

    /// Connects and says hello.
    async fn open(&self) -> anyhow::Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let grant = self.api.grant();
        let mut url = self.api.base().join(&format!("v1/sessions/{}/events", grant.session))?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        if url.set_scheme(scheme).is_err() {
            bail!("{url} has no WebSocket scheme");
        }
        let mut request = url.as_str().into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse()?);
        let connector = Connector::Rustls(Arc::new(https_config(self.trust)?));
        let (mut socket, _) =
            connect_async_tls_with_config(request, None, true, Some(connector)).await.context("cannot open")?;
        socket.send(text(&ClientEvent::Hello { token: grant.token })?).await?;
        Ok(socket)
    }

    /// Both clocks now.
    fn read(&self) -> Reading {
        let before = self.origin.elapsed();
        let wall = wall_now();
        let after = self.origin.elapsed();
        Reading { at: Micros(micros(after)), wall, took_us: micros(after.saturating_sub(before)) }
    }

    fn tell_step(&self) {
        tracing::info!("this machine's clock was set: its offset is unknown until the next exchange");
        self.clock.send_replace(None);
    }

    /// Publishes the offset; the report for signaling where it is wanted.
    fn handle_reply(&self, clock: &mut Clock, times: (WallMicros, WallMicros, WallMicros)) -> Option<ClientEvent> {
        let reading = self.read();
        if clock.handle_reading(reading) {
            self.tell_step();
        }
        clock.handle_reply(reading, times);
        let offset = clock.filter.offset(reading.at);
        self.clock.send_replace(offset);
        // Signaling closes the socket over what is not plausible; without a report it says that the clock is unknown.
        let o = offset.filter(|o| self.report && o.is_plausible())?;
        Some(ClientEvent::ClockReport { offset_us: o.offset_us, uncertainty_us: o.uncertainty_us })
    }
}

/// Both clocks of this machine at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The monotonic one, after the other.
    at: Micros,
    wall: WallMicros,
    /// From before the wall clock was read until after it: how far apart the two readings may be.
    took_us: u64,
}

/// The clock exchange of one socket.
#[derive(Debug)]
struct Clock {
    filter: ClockFilter,
    /// What the wall clock is compared with: the two clocks when the filter was empty.
    reference: Reading,
    /// The one question that is not answered yet.
    asked: Option<WallMicros>,
    /// When the last reply came, or the socket was opened.
    heard: Micros,
}

impl Clock {
    fn new(now: Reading) -> Self {
        Self { filter: ClockFilter::default(), reference: now, asked: None, heard: now.at }
    }

    /// Whether our wall clock was set since the reference. What was found before is forgotten then, and the exchange under
    /// way will not count: its two ends are on two clocks.
    fn handle_reading(&mut self, now: Reading) -> bool {
        let r = self.reference;
        let passed = now.at.since(r.at);
        let expected = r.wall.offset(i64::try_from(passed).unwrap_or(i64::MAX));
        let off = now.wall.signed_since(expected).unsigned_abs();
        // A reading that was interrupted in its middle proves no more than how long that took.
        let stepped = off > STEP_US.saturating_add(now.took_us).saturating_add(r.took_us);
        if stepped {
            self.filter.clear();
            self.asked = None;
            self.reference = now;
        }
        stepped
    }

    /// The question to ask now; none while one is under way.
    const fn poll_question(&mut self, now: Reading) -> Option<WallMicros> {
        if self.asked.is_some() {
            return None;
        }
        self.asked = Some(now.wall);
        self.asked
    }

    /// Takes the reply to the question under way; another one proves only that the server is there.
    fn handle_reply(&mut self, now: Reading, (t0, t1, t2): (WallMicros, WallMicros, WallMicros)) {
        self.heard = now.at;
        if self.asked == Some(t0) {
            self.asked = None;
            self.filter.handle_exchange(now.at, Exchange { t0, t1, t2, t3: now.wall });
        }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn text(event: &ClientEvent) -> anyhow::Result<Message> {
    Ok(Message::Text(serde_json::to_string(event)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monotonic and wall clock, both in milliseconds.
    const fn reading(at_ms: u64, wall_ms: u64) -> Reading {
        Reading { at: Micros(at_ms * 1_000), wall: WallMicros(wall_ms * 1_000), took_us: 2 }
    }

    /// One exchange of 2 ms with a server whose clock shows 9 s more than `wall_ms`.
    fn exchange(c: &mut Clock, at_ms: u64, wall_ms: u64) -> Option<Offset> {
        let t0 = c.poll_question(reading(at_ms, wall_ms))?;
        let there = t0.offset(9_001_000);
        let then = reading(at_ms + 2, wall_ms + 2);
        c.handle_reply(then, (t0, there, there));
        c.filter.offset(then.at)
    }

    #[test]
    fn a_clock_that_was_set_makes_the_offset_unknown_until_the_next_exchange() {
        for wall_after in [51_021, 50_979, 3_000_000, 0] {
            let mut c = Clock::new(reading(0, 50_000));
            let found = exchange(&mut c, 0, 50_000).unwrap();
            assert_eq!((found.offset_us, found.uncertainty_us), (9_000_000, 1_000));
            assert!(c.handle_reading(reading(1_000, wall_after)), "{wall_after}");
            assert_eq!(c.filter.offset(Micros(1_000_000)), None);
            assert!(!c.handle_reading(reading(1_001, wall_after + 1)), "the new time is what counts from now on");
        }
    }

    #[test]
    fn a_small_difference_is_no_step_but_many_in_one_direction_are() {
        let mut c = Clock::new(reading(0, 50_000));
        assert!(!c.handle_reading(reading(1_000, 51_012)) && !c.handle_reading(reading(2_000, 51_988)));
        assert!(c.handle_reading(reading(3_000, 53_024)), "compared with the reference, not with the last reading");
    }

    #[test]
    fn a_reading_that_was_interrupted_proves_no_step() {
        let mut c = Clock::new(reading(0, 50_000));
        assert!(!c.handle_reading(Reading { took_us: 80_000, ..reading(1_080, 51_000) }));
    }

    #[test]
    fn an_exchange_over_a_step_does_not_count_but_shows_that_the_server_is_there() {
        let mut c = Clock::new(reading(0, 50_000));
        let t0 = c.poll_question(reading(0, 50_000)).unwrap();
        assert_eq!(c.poll_question(reading(1_000, 51_000)), None, "one question at a time");
        assert!(c.handle_reading(reading(1_500, 60_000)));
        c.handle_reply(reading(1_500, 60_000), (t0, t0, t0));
        assert_eq!((c.filter.offset(Micros(1_500_000)), c.heard), (None, Micros(1_500_000)));
        assert!(exchange(&mut c, 2_000, 60_500).is_some());
    }
}
