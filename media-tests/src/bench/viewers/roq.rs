//! Native viewers: a QUIC connection each.

use super::super::ends::{Participant, connect, identity};
use super::super::generator::FEED;
use super::super::packet::Probe;
use super::super::words::{Finished, Measured, Order, Word, orders, say};
use super::ENOUGH;
use super::tally::{Delays, Tally, read_now};
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;
use trocar_proto::media::roq::{self, FlowPrefix, StreamReader};
use trocar_proto::media::rtcp::Builder;
use trocar_proto::media::rtp::Header;
use trocar_proto::session::api::RoqBinding;
use trocar_proto::units::{FlowId, Ssrc};

/// Orders are looked at, and reports sent, this often.
const TICK: Duration = Duration::from_millis(10);
/// Bytes taken from a stream at a time.
const CHUNK: usize = 65_536;

#[derive(Default)]
struct Shared {
    tallies: Vec<Tally>,
    delays: Delays,
    streams: u64,
}

impl Shared {
    fn take(&mut self, viewer: usize, packet: &[u8]) {
        let Self { tallies, delays, .. } = self;
        let Some(tally) = tallies.get_mut(viewer) else { return };
        tally.take(packet.len(), read_now(), delays, || Probe::read(Header::parse(packet).ok()?.payload(packet)));
    }
}

type Share = Rc<RefCell<Shared>>;

pub(super) fn run(base: &str, invitation: &str, ca: &Path, streams: bool) -> anyhow::Result<()> {
    let orders = orders();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async {
        let me = Participant::join(base, invitation, Some(&identity(ca)?)).await?;
        let shared = Share::default();
        let mut awaited = None;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            match orders.try_recv() {
                Ok(Order::Open(count)) => {
                    for _ in 0..count {
                        open(&me, ca, streams, &shared).await?;
                    }
                    awaited = Some(shared.borrow().tallies.len());
                }
                Ok(order) => handle(&order, &mut shared.borrow_mut())?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            let ready = shared.borrow().tallies.iter().filter(|t| t.packets() >= ENOUGH).count();
            if awaited == Some(ready) {
                awaited = None;
                say(&Word::Ready)?;
            }
        }
    })
}

fn handle(order: &Order, shared: &mut Shared) -> anyhow::Result<()> {
    match order {
        Order::Begin => {
            shared.tallies.iter_mut().for_each(Tally::begin);
            shared.delays.begin();
        }
        Order::End => {
            let mut all = Measured::default();
            shared.tallies.iter().for_each(|t| t.add_to(&mut all));
            shared.delays.end(&mut all);
            say(&Word::Measured(all))?;
        }
        Order::Finish(made) => {
            let mut all = Finished::default();
            shared.tallies.iter().for_each(|t| t.finish(*made, &mut all));
            all.protection = if shared.streams > 0 { "QUIC streams" } else { "QUIC datagrams" }.to_owned();
            say(&Word::Finished(all))?;
        }
        _ => {}
    }
    Ok(())
}

/// Asks for the feed and connects. The tasks that read run until the process ends.
async fn open(me: &Participant, ca: &Path, streams: bool, shared: &Share) -> anyhow::Result<()> {
    let wanted = streams.then(|| json!({ "mode": "stream" }));
    let binding: RoqBinding = me.post(&format!("feeds/{FEED}/legs"), wanted.as_ref()).await?;
    let (endpoint, connection) = connect(identity(ca)?, &binding).await?;
    let viewer = shared.borrow().tallies.len();
    shared.borrow_mut().tallies.push(Tally::default());
    // Its report tells the relay which connection the leg is to go to.
    let report = Builder::default().receiver_report(Ssrc(1), None).finish();
    if let Some(prefix) = FlowPrefix::new(binding.rtcp_flow_id) {
        connection.send_datagram([prefix.as_bytes(), &report].concat().into())?;
    }
    let flow = binding.rtp_flow_id;
    let (datagrams, share) = (connection.clone(), Rc::clone(shared));
    tokio::task::spawn_local(async move {
        let _endpoint = endpoint;
        while let Ok(d) = datagrams.read_datagram().await {
            if let Some((_, packet)) = roq::split(&d).filter(|(f, _)| *f == flow) {
                share.borrow_mut().take(viewer, packet);
            }
        }
    });
    let share = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        while let Ok(stream) = connection.accept_uni().await {
            share.borrow_mut().streams += 1;
            tokio::task::spawn_local(read_stream(stream, flow, viewer, Rc::clone(&share)));
        }
    });
    Ok(())
}

async fn read_stream(mut stream: quinn::RecvStream, flow: FlowId, viewer: usize, share: Share) {
    let mut reader = StreamReader::default();
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK, true).await {
        reader.handle_bytes(&chunk.bytes);
        while let Ok(Some((f, packet))) = reader.poll_packet() {
            if f == flow {
                share.borrow_mut().take(viewer, packet);
            }
        }
    }
}
