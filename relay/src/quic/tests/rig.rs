//! Two ends of quinn's protocol and the emulator's line between them, on a clock that goes in steps: nothing here waits, so
//! a machine under load changes nothing.

use crate::quic::line::{figures_of, granted_to};
use crate::quic::{Identity, client_config, server_config};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_proto::link::config::Blackout;
use trocar_proto::link::{Fate, Link, LinkConfig};
use trocar_proto::media::rate::SharedLine;
use trocar_proto::session::feed::Purpose;
use trocar_proto::units::{Bitrate, Micros};
use trocar_testpki::{Authority, Leaf};

const STEP_US: u64 = 100;
const FPS: u64 = 60;
/// Bytes of a datagram: number, time, filling.
const DATAGRAM: usize = 1_100;
/// What waits in the sender for longer than this at the source's rate keeps the next frame out, in milliseconds.
const WAIT_MS: u64 = 200;

pub(in crate::quic) fn identity() -> Identity {
    let ca = Authority::new();
    let own = ca.issue(&Leaf::host("localhost"));
    Identity { key: own.key(), chain: vec![own.der], trust: vec![ca.der()] }
}

struct End {
    address: SocketAddr,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
}

impl End {
    /// What this end has to send now.
    fn drive(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let Some((handle, c)) = &mut self.connection else { return };
        if c.poll_timeout().is_some_and(|t| t <= now) {
            c.handle_timeout(now);
        }
        while let Some(event) = c.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                c.handle_event(event);
            }
        }
        while let Some(event) = c.poll() {
            assert!(!matches!(event, Event::ConnectionLost { .. }), "{event:?}");
        }
        let mut buffer = Vec::new();
        while let Some(t) = c.poll_transmit(now, 10, &mut buffer) {
            out.extend(buffer[..t.size].chunks(t.segment_size.unwrap_or(t.size)).map(<[u8]>::to_vec));
            buffer.clear();
        }
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let mut buffer = Vec::new();
        match self.endpoint.handle(now, from, None, None, BytesMut::from(bytes), &mut buffer) {
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = Some(self.endpoint.accept(incoming, now, &mut buffer, None).unwrap());
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => self.connection.as_mut().unwrap().1.handle_event(event),
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }
}

/// What is sent over the line, and how the sender is set up.
pub(in crate::quic) struct Config {
    pub(in crate::quic) there: LinkConfig,
    pub(in crate::quic) back: LinkConfig,
    /// From that second on the way there is this one.
    pub(in crate::quic) then: Option<(u64, LinkConfig)>,
    /// Bits per second of the source, in frames.
    pub(in crate::quic) source: u64,
    /// What else leaves by the connection, where the source is the first of several: what each is for, and its bits per second.
    pub(in crate::quic) streams: &'static [(Purpose, u64)],
    /// They share the line by what they are for.
    pub(in crate::quic) shared: bool,
    /// Changes the sender's transport.
    pub(in crate::quic) transport: fn(&mut quinn::TransportConfig),
    /// What the sender's connection is told that it was granted, once it stands.
    pub(in crate::quic) granted: Bitrate,
}

/// What was seen.
#[derive(Default)]
pub(in crate::quic) struct Seen {
    /// Of each datagram that came: microseconds of the clock at which its frame was made, and at which it came.
    arrived: Vec<(u64, u64)>,
    /// Of each datagram that came: the number of its stream and when it came.
    by_stream: Vec<(u8, u64, u64)>,
    /// Of each packet that left the line: when, and its wait for the line, in microseconds.
    waited: Vec<(u64, u64)>,
    /// When each datagram was made that was handed over.
    made: Vec<u64>,
    /// Frames that were kept out, since too much waited.
    pub(in crate::quic) kept_out: u64,
}

impl Seen {
    /// Bits per second of datagrams that came between two seconds.
    pub(in crate::quic) fn goodput(&self, from: u64, to: u64) -> f64 {
        let within = |a: &&(u64, u64)| (from * 1_000_000..to * 1_000_000).contains(&a.1);
        self.arrived.iter().filter(within).count() as f64 * DATAGRAM as f64 * 8.0 / (to - from) as f64
    }

    /// Bits per second of datagrams that were handed over between two seconds.
    pub(in crate::quic) fn offered(&self, from: u64, to: u64) -> f64 {
        let within = |at: &&u64| (from * 1_000_000..to * 1_000_000).contains(*at);
        self.made.iter().filter(within).count() as f64 * DATAGRAM as f64 * 8.0 / (to - from) as f64
    }

    /// Bits per second of a stream that came between two seconds.
    pub(in crate::quic) fn came(&self, stream: u8, from: u64, to: u64) -> f64 {
        let within = |a: &&(u8, u64, u64)| a.0 == stream && (from * 1_000_000..to * 1_000_000).contains(&a.2);
        self.by_stream.iter().filter(within).count() as f64 * DATAGRAM as f64 * 8.0 / (to - from) as f64
    }

    /// A quantile of the age of a stream's datagrams, in milliseconds.
    pub(in crate::quic) fn age_of(&self, stream: u8, from: u64, share: f64) -> f64 {
        let its = |a: &&(u8, u64, u64)| a.0 == stream && a.2 >= from * 1_000_000;
        quantile(self.by_stream.iter().filter(its).map(|a| a.2 - a.1), share)
    }

    /// Of each dark time: how long after its end the first datagram came that left after it, and how old that was, in milliseconds.
    pub(in crate::quic) fn after_dark(&self, dark: &Blackout) -> Vec<(f64, f64)> {
        let last = self.arrived.iter().map(|a| a.1).max().unwrap_or(0);
        let first = |end: u64| self.arrived.iter().filter(|a| a.1 > end).min_by_key(|a| a.1);
        let ends = dark.ends().take_while(|end| end + 1_000_000 < last);
        ends.filter_map(|end| first(end).map(|a| ((a.1 - end) as f64 / 1e3, (a.1 - a.0) as f64 / 1e3))).collect()
    }

    /// When the last datagram came that was older than so many microseconds.
    pub(in crate::quic) fn last_above(&self, us: u64) -> f64 {
        self.arrived.iter().filter(|a| a.1 - a.0 > us).map(|a| a.1).max().unwrap_or(0) as f64
    }

    /// A quantile of the wait for the line, in milliseconds.
    pub(in crate::quic) fn queue(&self, from: u64, share: f64) -> f64 {
        quantile(self.waited.iter().filter(|w| w.0 >= from * 1_000_000).map(|w| w.1), share)
    }

    /// A quantile of the time from the making of a frame to the arrival of its datagrams, in milliseconds.
    pub(in crate::quic) fn age(&self, from: u64, share: f64) -> f64 {
        quantile(self.arrived.iter().filter(|a| a.1 >= from * 1_000_000).map(|a| a.1 - a.0), share)
    }
}

fn quantile(values: impl Iterator<Item = u64>, share: f64) -> f64 {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable();
    let at = (all.len() as f64 * share) as usize;
    all.get(at).map_or(f64::NAN, |v| *v as f64 / 1_000.0)
}

/// Runs a connection for so many seconds.
pub(in crate::quic) fn run(config: &Config, seconds: u64) -> Seen {
    let id = identity();
    let server = server_config(id.duplicate()).unwrap();
    let mut client = client_config(id).unwrap();
    let mut transport = crate::quic::transport_config();
    (config.transport)(&mut transport);
    client.transport_config(Arc::new(transport));
    let origin = Instant::now();
    let end = |port: u16, server: Option<quinn::ServerConfig>| End {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), server.map(Arc::new), true, Some([7; 32])),
        connection: None,
    };
    let (mut near, mut far) = (end(1_000, None), end(2_000, Some(server)));
    near.connection = Some(near.endpoint.connect(origin, client, far.address, "localhost").unwrap());
    let mut ways = vec![(0, Link::new(&config.there, 3).unwrap(), config.there.delay.range().0)];
    ways.extend(config.then.iter().map(|(s, c)| (s * 1_000_000, Link::new(c, 5).unwrap(), c.delay.range().0)));
    let mut back = Link::new(&config.back, 4).unwrap();
    let (mut seen, mut source) = (Seen::default(), Frames::new(config));
    let mut out = Vec::new();
    for us in (0..seconds * 1_000_000).step_by(STEP_US as usize) {
        let (now, at) = (origin + Duration::from_micros(us), Micros(us));
        let (_, c) = near.connection.as_mut().unwrap();
        if !c.is_handshaking() {
            source.make(us, config, c, &mut seen);
        }
        near.drive(now, &mut out);
        let way = ways.iter_mut().rev().find(|(from, ..)| *from <= us).map(|(_, link, _)| link).unwrap();
        for bytes in out.drain(..) {
            let _ = way.handle_packet(at, bytes.len() as u32, bytes);
        }
        far.drive(now, &mut out);
        for bytes in out.drain(..) {
            let _ = back.handle_packet(at, bytes.len() as u32, bytes);
        }
        for (_, way, delay) in &mut ways {
            while let Some(d) = way.poll_departure(at) {
                let Fate::Delivered { at: when, .. } = d.entry.fate else { continue };
                seen.waited.push((when.0, when.since(d.entry.arrived) - *delay));
                far.handle(now, near.address, &d.payload);
            }
            while way.poll_drop().is_some() {}
        }
        while let Some(d) = back.poll_departure(at) {
            near.handle(now, far.address, &d.payload);
        }
        while back.poll_drop().is_some() {}
        if let Some((_, c)) = &mut far.connection {
            while let Some(d) = c.datagrams().recv() {
                let made = u64::from_be_bytes(d[..8].try_into().unwrap());
                seen.arrived.push((made, us));
                seen.by_stream.push((d[8], made, us));
            }
        }
    }
    seen
}

/// Frames of one size, at the rate of each source.
struct Frames {
    next: u64,
    connected: bool,
    buffer: usize,
    line: SharedLine,
    /// Number on the line, bits per second.
    streams: Vec<(u64, u64)>,
}

impl Frames {
    fn new(config: &Config) -> Self {
        let mut line = SharedLine::default();
        let join = |(purpose, rate): &(Purpose, u64)| (line.join(Micros(0), *purpose, 0, Bitrate(*rate)), *rate);
        let streams = config.streams.iter().map(join).collect();
        Self { next: 0, connected: false, buffer: 0, line, streams }
    }

    /// A frame of each stream; the queue in the sender counts for all of them.
    fn make_streams(&mut self, us: u64, shared: bool, waiting: u64, c: &mut Connection) {
        let at = Micros(us);
        if let Some((target, state)) = figures_of(c.congestion_state()).filter(|_| shared && self.line.is_due(at)) {
            self.line.settle(at, target, state);
        }
        let takes = figures_of(c.congestion_state()).map_or(0, |(t, _)| t.0);
        for (n, (id, rate)) in self.streams.iter().enumerate() {
            let packets = (rate / 8 / FPS / DATAGRAM as u64).max(1);
            self.line.note_offered(*id, packets * DATAGRAM as u64);
            let patience = if shared { self.line.patience(*id) } else { 1 };
            if waiting > takes / 8 * WAIT_MS / 1_000 / patience || !self.line.may_begin(at, *id) {
                continue;
            }
            self.line.note_sent(*id, packets * DATAGRAM as u64);
            for _ in 0..packets {
                let mut d = vec![0; DATAGRAM];
                d[..8].copy_from_slice(&us.to_be_bytes());
                d[8] = n as u8;
                let _ = c.datagrams().send(Bytes::from(d), false);
            }
        }
    }

    fn make(&mut self, us: u64, config: &Config, c: &mut Connection, seen: &mut Seen) {
        if !self.connected {
            self.connected = true;
            self.next = us;
            self.buffer = c.datagrams().send_buffer_space();
            granted_to(c.congestion_state(), config.granted);
        }
        if us < self.next {
            return;
        }
        self.next += 1_000_000 / FPS;
        let waiting = (self.buffer - c.datagrams().send_buffer_space()) as u64;
        if !self.streams.is_empty() {
            return self.make_streams(us, config.shared, waiting, c);
        }
        if waiting > config.source / 8 * WAIT_MS / 1_000 {
            seen.kept_out += 1;
            return;
        }
        for _ in 0..config.source / 8 / FPS / DATAGRAM as u64 {
            let mut d = vec![0; DATAGRAM];
            d[..8].copy_from_slice(&us.to_be_bytes());
            if c.datagrams().send(Bytes::from(d), false).is_ok() {
                seen.made.push(us);
            }
        }
    }
}
