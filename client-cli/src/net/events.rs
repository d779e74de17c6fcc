//! The event WebSocket: what happens in the session, and the clock exchange. Comes back by itself.

use super::api::{Api, wall_now};
use super::tls::https_config;
use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{Connector, connect_async_tls_with_config};
use trocar_proto::session::clock::{ClockFilter, Exchange, Offset};
use trocar_proto::session::event::{ClientEvent, SUBPROTOCOL, ServerEvent};
use trocar_proto::units::Micros;

/// Events that wait for the reader. Loss policy: reading the socket waits, and signaling drops or closes.
const EVENTS: usize = 256;
/// The clock is asked for this often.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);
/// First and longest wait before the socket is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// The socket's two outputs.
pub(crate) struct Events {
    /// What signaling says, clock replies left out. `None` says that the socket was lost and is being opened again.
    pub(crate) events: mpsc::Receiver<Option<ServerEvent>>,
    /// Server clock minus ours.
    pub(crate) clock: watch::Receiver<Option<Offset>>,
    task: tokio::task::JoinHandle<()>,
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
    let task = tokio::spawn(async move {
        let origin = Instant::now();
        let mut filter = ClockFilter::default();
        let mut wait = BACKOFF.0;
        while !sender.is_closed() {
            let began = Instant::now();
            let session = Session { api: &api, trust: &trust, report, origin, sender: &sender, clock: &clock_out };
            if let Err(error) = session.run(&mut filter).await {
                tracing::info!(error = format!("{error:#}"), "event socket");
            }
            if sender.send(None).await.is_err() {
                return;
            }
            wait = if began.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            tokio::time::sleep(wait).await;
        }
    });
    Events { events, clock, task }
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
    async fn run(&self, filter: &mut ClockFilter) -> anyhow::Result<()> {
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
        let mut tick = tokio::time::interval(CLOCK_PERIOD);
        loop {
            tokio::select! {
                _ = tick.tick() => socket.send(text(&ClientEvent::Clock { t0: wall_now() })?).await?,
                message = socket.next() => {
                    let event = match message.context("closed")?? {
                        Message::Text(t) => serde_json::from_str::<ServerEvent>(&t)?,
                        Message::Close(frame) => bail!("closed by signaling: {frame:?}"),
                        _ => continue,
                    };
                    let ServerEvent::ClockReply { t0, t1, t2 } = event else {
                        if self.sender.send(Some(event)).await.is_err() {
                            return Ok(());
                        }
                        continue;
                    };
                    let now = Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX));
                    filter.handle_exchange(now, Exchange { t0, t1, t2, t3: wall_now() });
                    let offset = filter.offset(now);
                    self.clock.send_replace(offset);
                    if let Some(o) = offset.filter(|_| self.report) {
                        let report = ClientEvent::ClockReport { offset_us: o.offset_us, uncertainty_us: o.uncertainty_us };
                        socket.send(text(&report)?).await?;
                    }
                }
            }
        }
    }
}

fn text(event: &ClientEvent) -> anyhow::Result<Message> {
    Ok(Message::Text(serde_json::to_string(event)?.into()))
}
