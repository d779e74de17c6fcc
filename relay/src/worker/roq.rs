//! QUIC connections of native publishers and viewers. Their packets reach the feed by a call on the same thread.

use super::state::{Core, Limits, Origin, Way};
use crate::doors::{Door, Doors};
use crate::frames::read_datagrams;
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_control::trust::{cert_hash, cert_name};
use trocar_proto::media::roq::{StreamReader, error_code};
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::{CertHash, RealmId};
use trocar_proto::units::FlowId;

/// Datagrams taken from a connection before their feeds send: as many as leave together.
pub(super) const BATCH: usize = super::egress::MAX_SEGMENTS;
/// Bytes taken from a stream at a time: a few packets, so that others get their turn.
const STREAM_CHUNK: usize = 16 * 1_024;
/// A stream that brings nothing for this long is given up.
const STREAM_SILENCE: Duration = Duration::from_secs(2);

/// Accepts connections of one realm's listener until the endpoint is closed.
pub(crate) async fn accept(core: Rc<RefCell<Core>>, endpoint: quinn::Endpoint, realm: RealmId, doors: Arc<Doors>) {
    while let Some(incoming) = endpoint.accept().await {
        let Limits { max_connections: limit, handshakes, .. } = core.borrow().limits;
        let mine = endpoint.open_connections();
        let established = core.borrow().connection_count;
        // Handshakes under way count as well: what they cost is paid on the media thread.
        if established >= limit || mine >= limit + handshakes {
            incoming.refuse();
        } else if mine > established + handshakes && !incoming.remote_address_validated() {
            // An error means that it was validated after all; either way nothing is owed to the client.
            let _ = incoming.retry();
        } else {
            tokio::task::spawn_local(serve(Rc::clone(&core), incoming, realm.clone(), Arc::clone(&doors)));
        }
    }
}

async fn serve(core: Rc<RefCell<Core>>, incoming: quinn::Incoming, realm: RealmId, doors: Arc<Doors>) {
    let patience = core.borrow().limits.handshake_timeout;
    let connection = match tokio::time::timeout(patience, incoming).await {
        Ok(Ok(c)) => c,
        // Anybody can make a handshake fail, so it is no line of an ordinary log.
        Ok(Err(error)) => return tracing::debug!(%error, "QUIC handshake failed"),
        Err(_) => return tracing::debug!("QUIC handshake took too long"),
    };
    let Some(cnf) = identify(&connection, &realm) else {
        connection.close(error_code::INTERNAL_ERROR.into(), b"certificate has no trocar:// name of this realm");
        return;
    };
    let _guest = doors.enter(Door::Media, &connection);
    core.borrow_mut().connection_opened(&connection, cnf, Instant::now());
    tokio::task::spawn_local(accept_streams(Rc::clone(&core), connection.clone(), cnf));
    let mut batch: Vec<Bytes> = Vec::with_capacity(BATCH);
    while read_datagrams(&connection, &mut batch, BATCH).await.is_ok() {
        core.borrow_mut().handle_roq_batch(&connection, cnf, &batch, Instant::now());
        batch.clear();
        // Datagrams that wait are ready at once: without this the clock and the other sockets would get no turn.
        tokio::task::yield_now().await;
    }
    core.borrow_mut().connection_closed(&connection, Instant::now());
}

/// Takes the streams of a connection until it ends. QUIC bounds how many there are at a time.
async fn accept_streams(core: Rc<RefCell<Core>>, connection: quinn::Connection, cnf: CertHash) {
    while let Ok(stream) = connection.accept_uni().await {
        tokio::task::spawn_local(read_stream(Rc::clone(&core), connection.clone(), cnf, stream));
    }
}

/// Reads the packets of one stream. A stream that its sender resets (late) is forgotten where it is.
async fn read_stream(
    core: Rc<RefCell<Core>>,
    connection: quinn::Connection,
    cnf: CertHash,
    mut stream: quinn::RecvStream,
) {
    let mut reader = StreamReader::default();
    // A stream carries a frame; one that stays silent longer than any frame's budget is of no more use.
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(STREAM_SILENCE, stream.read_chunk(STREAM_CHUNK, true)).await {
        reader.handle_bytes(&chunk.bytes);
        if let Err(code) = core.borrow_mut().handle_stream(&connection, cnf, &mut reader, Instant::now()) {
            let _ = stream.stop(code.into());
            return;
        }
        // Chunks that wait are ready at once: others get their turn.
        tokio::task::yield_now().await;
    }
    let _ = stream.stop(error_code::NO_ERROR.into());
}

fn identify(connection: &quinn::Connection, realm: &RealmId) -> Option<CertHash> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let leaf = chain.first()?;
    cert_name(leaf).filter(|n| &n.realm == realm).map(|_| cert_hash(leaf))
}

impl Core {
    /// The packets that a stream has brought so far. An error is the code to stop the stream with.
    fn handle_stream(
        &mut self,
        connection: &quinn::Connection,
        cnf: CertHash,
        reader: &mut StreamReader,
        now: Instant,
    ) -> Result<(), u32> {
        let result = loop {
            match reader.poll_packet() {
                Ok(Some((flow, packet))) if self.handle_roq_packet(connection, cnf, flow, packet, now) => {}
                Ok(Some(_)) => break Err(error_code::UNKNOWN_FLOW_ID),
                Ok(None) => break Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "stream of a publisher");
                    break Err(error_code::PACKET_ERROR);
                }
            }
        };
        self.send_on(now);
        result
    }

    fn connection_opened(&mut self, connection: &quinn::Connection, cnf: CertHash, now: Instant) {
        self.connection_count += 1;
        // A viewer that sends no RTCP still gets what it asked for before it connected: of each feed the newest leg, for
        // older ones were left behind.
        let mut newest: BTreeMap<usize, (FlowId, usize)> = BTreeMap::new();
        for (index, leg) in &self.legs {
            if let Way::Roq(w) = &leg.way
                && w.cnf == cnf
                && w.paths() == 0
                && let Some(feed) = leg.feed
                && newest.get(&feed).is_none_or(|(flow, _)| *flow < w.rtcp_flow)
            {
                newest.insert(feed, (w.rtcp_flow, index));
            }
        }
        let waiting: Vec<usize> = newest.into_values().map(|(_, index)| index).collect();
        for index in waiting {
            self.leave_by(index, connection, now);
        }
    }

    /// The viewer of a native leg was heard by this connection: sends it there from now on. Nothing changes where it goes there
    /// already, or by others that are in use.
    pub(super) fn attach(&mut self, index: usize, connection: &quinn::Connection, now: Instant) {
        if !self.hear(index, connection, now) {
            self.leave_by(index, connection, now);
            self.hear(index, connection, now);
        }
    }

    fn hear(&mut self, index: usize, connection: &quinn::Connection, now: Instant) -> bool {
        let at = self.micros(now);
        let Some(Way::Roq(w)) = self.legs.get_mut(index).map(|l| &mut l.way) else { return false };
        w.hear(connection, at)
    }

    fn leave_by(&mut self, index: usize, connection: &quinn::Connection, now: Instant) {
        let at = self.micros(now);
        let queue = self.queue_of(connection.stable_id());
        let Some(leg) = self.legs.get_mut(index) else { return };
        let Way::Roq(w) = &mut leg.way else { return };
        if !w.attach(connection, queue, at) {
            return;
        }
        if let Some(f) = leg.feed.and_then(|f| self.feeds.get(f)) {
            leg.leg.start(&f.feed, at);
        }
        self.grant_lines(at);
        self.set_leg_state(index, LegState::Connected);
        self.pump_leg(index, now);
    }

    fn connection_closed(&mut self, connection: &quinn::Connection, now: Instant) {
        let at = self.micros(now);
        self.connection_count = self.connection_count.saturating_sub(1);
        let id = connection.stable_id();
        for (_, feed) in &mut self.feeds {
            if let Origin::Roq { paths, .. } = &mut feed.origin {
                paths.forget(id);
            }
        }
        let mut gone = Vec::new();
        for (index, leg) in &mut self.legs {
            if let Way::Roq(w) = &mut leg.way
                && w.forget(id)
                && w.paths() == 0
            {
                leg.unconnected_since = at;
                gone.push(index);
            }
        }
        for index in gone {
            self.set_leg_state(index, LegState::Connecting);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::frames::tests::pair;
    use crate::worker::native::{RoqWay, RoqWayConfig};
    use trocar_proto::media::feed::JOIN_FROM_CACHE_US;
    use trocar_proto::media::roq::FlowPrefix;
    use trocar_proto::session::api::LegRequest;
    use trocar_proto::session::ids::CertHash;
    use trocar_proto::units::{FlowId, Micros};

    #[tokio::test]
    async fn two_connections_that_are_heard_by_turns_do_not_begin_the_leg_anew_each_time() {
        let pair = pair().await;
        let (a, b) = (&pair.sender, &pair.receiver);
        let flow = |n| FlowPrefix::new(FlowId(n)).unwrap();
        let mut way = RoqWay::new(RoqWayConfig {
            cnf: CertHash([1; 32]),
            rtcp_flow: FlowId(71),
            prefix: flow(70),
            rtcp_prefix: flow(71),
            asked: LegRequest::default(),
            feed: crate::worker::tests::descriptor(10_000_000, 400),
        });
        let ms = |ms: u64| Micros(ms * 1_000);
        // One that is only thought to be the viewer's gives way to the one that it is heard by.
        assert!(way.attach(a, None, ms(0)) && way.attach(b, None, ms(0)) && way.hear(b, ms(0)));
        let mut begun = 0_u64;
        for t in 0..1_000 {
            let by = if t % 2 == 0 { a } else { b };
            if !way.hear(by, ms(t * 10)) {
                begun += u64::from(way.attach(by, None, ms(t * 10)));
                way.hear(by, ms(t * 10));
            }
        }
        assert_eq!(begun, 0, "the one that is in use stays");
        // Heard so rarely that neither is in use: at most one turn of what a joiner is sent at a time.
        for t in 0..100 {
            let (by, at) = (if t % 2 == 0 { a } else { b }, ms(10_000 + t * 400));
            if !way.hear(by, at) {
                begun += u64::from(way.attach(by, None, at));
                way.hear(by, at);
            }
        }
        assert!((1..=40_000_000 / JOIN_FROM_CACHE_US).contains(&begun), "{begun} within 40 seconds");
        // What is closed is given up at once.
        let (held, other) = if way.hear(a, ms(50_000)) { (a, b) } else { (b, a) };
        assert!(way.hear(held, ms(50_000)) && !way.attach(other, None, ms(50_000)));
        held.close(0_u32.into(), b"");
        assert!(way.attach(other, None, ms(50_000)));
    }
}
