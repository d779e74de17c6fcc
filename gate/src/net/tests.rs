use super::*;
use crate::core::{Event, Lane};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use trocar_control::channel::{self, Reader, SharedDedupe, Writer};
use trocar_control::seal::SealKeys;
use trocar_control::transport::{Connect, ControlConnection, Event as Heard, Events, Tunnel};
use trocar_control::trust::Identity;
use trocar_proto::control::{Index, PartyKind};
use trocar_proto::handover::gate::{Input, Peer};
use trocar_proto::handover::message::{
    Command, Datagram, Heartbeat, Payload, Pose, Reason, Short, ToGate, Token, decode_from_gate,
};
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::types::{Binding, Clutch, Counter, Epoch, ExpertId, GrantedSet, Nonce, Oid};
use trocar_proto::session::ids::{CertHash, SessionId};

#[path = "../../../control/tests/channel/support/mod.rs"]
mod support;

use support::{Fault, Pki, Relay};

const SOON: Duration = Duration::from_secs(10);
const OID: Oid = Oid(7);

/// A gate's network side with what the core would get, and the relays that it goes to.
struct Theatre {
    pki: Pki,
    relays: Vec<Relay>,
    net: Net,
    inbox: Inbox,
}

impl Theatre {
    fn new(relays: usize) -> Self {
        let pki = Pki::new();
        let relays: Vec<Relay> = (0..relays).map(|_| Relay::start(&pki)).collect();
        let (certificate, key, _) = pki.files("trocar://test/gate/g", "g");
        let address = |r: &Relay| RelayAddress { host: "127.0.0.1".to_owned(), port: r.address.port(), local: None };
        let config = NetConfig {
            relays: relays.iter().map(address).collect(),
            certificate,
            key,
            trust: pki.directory().to_owned(),
            issuer: "signaling-test".to_owned(),
            issuer_key: pki.directory().join("issuer.pub"),
            session: SessionId::new("S").unwrap(),
        };
        let inbox = Inbox::default();
        let net = start(&config, inbox.clone(), Troubles::new(inbox.clone()), &Handle::current()).unwrap();
        Self { pki, relays, net, inbox }
    }

    /// The next event that the core would get, beside what is said of paths.
    async fn event(&self) -> Event {
        loop {
            match self.any().await {
                Event::Input(Input::Paths(..)) => {}
                other => return other,
            }
        }
    }

    async fn any(&self) -> Event {
        let inbox = self.inbox.clone();
        let popped = tokio::task::spawn_blocking(move || inbox.pop(SOON)).await.unwrap();
        popped.expect("nothing came for the core")
    }

    /// What the core is told of paths next.
    async fn protection(&self) -> Protection {
        loop {
            if let Event::Input(Input::Paths(_, protection)) = self.any().await {
                return protection;
            }
        }
    }

    async fn input(&self) -> Input {
        match self.event().await {
            Event::Input(input) => input,
            other => panic!("no input: {other:?}"),
        }
    }

    /// A channel's first two events.
    async fn opened(&self) -> (ChannelId, Peer) {
        let Event::Who(channel, who, _) = self.event().await else { panic!("Who is not first") };
        assert!(who.person.is_none());
        let Input::Opened { channel: same, peer } = self.input().await else { panic!("Opened is not second") };
        assert_eq!(channel, same);
        (channel, peer)
    }

    fn count(&self, name: &str) -> u64 {
        self.net.counters().all().into_iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| n)
    }

    /// Waits until a counter is there.
    async fn counted(&self, name: &str, at_least: u64) {
        let until = Instant::now() + SOON;
        while self.count(name) < at_least {
            assert!(Instant::now() < until, "{name} stays at {}", self.count(name));
            tokio::task::yield_now().await;
        }
    }
}

/// A station at one relay.
struct Station {
    connection: ControlConnection,
    events: Events,
    gate: Index,
}

impl Station {
    async fn connect(theatre: &Theatre, relay: usize, me: &Identity, kind: PartyKind) -> Self {
        let (relay, session) = (&theatre.relays[relay], SessionId::new("S").unwrap());
        let server_name = "127.0.0.1".to_owned();
        let to = Connect { relay: relay.address, local: None, server_name, session, kind, token: None };
        let (connection, mut events) = ControlConnection::connect(&to, me, &theatre.pki.trust()).await.unwrap();
        let gate = loop {
            if let Heard::Joined { index, kind: PartyKind::Gate, .. } = timeout(SOON, events.next()).await.unwrap() {
                break index;
            }
        };
        Self { connection, events, gate }
    }

    async fn channel(&self, theatre: &Theatre, me: &Identity) -> Line {
        let tunnel = self.connection.open_tunnel(self.gate).await.unwrap();
        let channel = channel::connect(tunnel, me, &theatre.pki.trust(), "gate").await.unwrap();
        let (keys, tunnel) = (channel.seal_keys().unwrap(), channel.tunnel);
        let (reader, writer) = channel.start(SharedDedupe::default());
        Line { reader, writer, keys, tunnel }
    }

    async fn datagram(&self) -> Vec<u8> {
        timeout(SOON, self.connection.datagram()).await.unwrap().unwrap().1.to_vec()
    }
}

/// A station's end of a channel.
struct Line {
    reader: Reader<FromGate, Tunnel>,
    writer: Writer,
    keys: SealKeys,
    tunnel: u128,
}

impl Line {
    async fn next(&mut self) -> (u64, FromGate) {
        timeout(SOON, self.reader.next()).await.unwrap().unwrap()
    }
}

fn hello(theatre: &Theatre, cnf: CertHash, binds: Option<u128>) -> ToGate {
    let token = Token::new(theatre.pki.token(cnf, "dr-a", "S")).unwrap();
    ToGate::Hello { capabilities: 0, binds, token }
}

fn heartbeat(binding: Binding, counter: u64) -> Heartbeat {
    Heartbeat {
        binding,
        counter: Counter(counter),
        beat: 0,
        nonce: Nonce(1),
        echo: None,
        presence: true,
        pedal: false,
        pose: Pose::default(),
    }
}

const fn beacon(binding: Binding, counter: u64) -> Beacon {
    Beacon { binding, counter: Counter(counter), nonce: Nonce(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_hello_to_a_command_every_event_reaches_the_core_under_the_right_name() {
    // HO-M-001, HO-C-007
    let mut theatre = Theatre::new(1);
    let (me, _) = theatre.pki.device("station", "a");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let mut line = station.channel(&theatre, &me).await;
    let (id, peer) = theatre.opened().await;
    assert_eq!(peer, Peer::Station(me.expert()));

    // HELLO with a token of this certificate; with one of another it comes without what the token says.
    line.writer.send(1, &hello(&theatre, me.hash(), None)).unwrap();
    let Event::Who(named, who, false) = theatre.event().await else { panic!("no Who") };
    assert_eq!((named, who.person), (id, Some(Short::new("dr-a").unwrap())));
    let Input::Message { channel, token: Some(token), .. } = theatre.input().await else { panic!("no HELLO") };
    assert_eq!((channel, token.expert), (id, me.expert()));
    line.writer.send(2, &hello(&theatre, CertHash([9; 32]), None)).unwrap();
    let bad = theatre.input().await;
    assert!(matches!(bad, Input::Message { token: None, .. }), "{bad:?}");
    assert_eq!(theatre.count("net_bad_tokens"), 1);

    // Reliable message to the station.
    let offer = FromGate::Withdraw { oid: OID };
    theatre.net.send(id, &offer);
    assert_eq!(line.next().await, (1, offer));

    // Before the gate's own machine binds anything, nothing opens.
    line.keys.accept(OID).unwrap();
    let early = line.keys.seal(&Datagram::Heartbeat(heartbeat(Binding::Offer(OID), 1))).unwrap();
    assert!(station.connection.send_datagram(station.gate, &early));
    theatre.counted("net_datagrams_unopened", 1).await;
    theatre.net.seal(id, &beacon(Binding::Offer(OID), 1));
    let opened = line.keys.open(&station.datagram().await).unwrap();
    assert_eq!(opened, Datagram::Beacon(beacon(Binding::Offer(OID), 1)));
    let hb = heartbeat(Binding::Offer(OID), 2);
    let sealed = line.keys.seal(&Datagram::Heartbeat(hb.clone())).unwrap();
    assert!(station.connection.send_datagram(station.gate, &sealed));
    assert_eq!(theatre.input().await, Input::Heartbeat(id, hb));

    // GRANT binds the epoch, and a command goes through.
    let grant = FromGate::Grant { holder: me.expert(), epoch: Epoch(4), set: GrantedSet::CAMERA, lease_ms: 500 };
    theatre.net.send(id, &grant);
    assert_eq!(line.next().await, (2, grant));
    line.keys.grant(Epoch(4)).unwrap();
    let payload = Payload::new(*b"up").unwrap();
    let (epoch, counter, nonce) = (Epoch(4), Counter(1), Nonce(5));
    let command = Command { epoch, counter, nonce, echo: None, clutch: Clutch::Closed, payload };
    let sealed = line.keys.seal(&Datagram::Command(command.clone())).unwrap();
    assert!(station.connection.send_datagram(station.gate, &sealed));
    assert_eq!(theatre.input().await, Input::Command(id, command));

    // The end is told.
    line.writer.close();
    drop(line);
    assert_eq!(theatre.input().await, Input::Gone(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_relay_changes_or_makes_up_reaches_the_core_never_and_is_counted() {
    // HO-X-021
    let mut theatre = Theatre::new(1);
    let (me, _) = theatre.pki.device("station", "a");
    let (other, _) = theatre.pki.device("station", "b");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let mut line = station.channel(&theatre, &me).await;
    let (id, _) = theatre.opened().await;
    theatre.net.seal(id, &beacon(Binding::Epoch(Epoch(2)), 1));
    line.keys.grant(Epoch(2)).unwrap();
    let mut seal = |n| line.keys.seal(&Datagram::Heartbeat(heartbeat(Binding::Epoch(Epoch(2)), n))).unwrap();

    theatre.relays[0].fault(Fault::Flip(0));
    assert!(station.connection.send_datagram(station.gate, &seal(1)));
    theatre.counted("net_datagrams_unopened", 1).await;
    theatre.relays[0].fault(Fault::None);
    for junk in [b"".as_slice(), b"x", &[0x11; 60], &[0; 1_100]] {
        assert!(station.connection.send_datagram(station.gate, junk));
    }
    theatre.counted("net_datagrams_unopened", 5).await;
    // The holder's own datagram, shown by another party: the relay's numbers decide nothing, and neither does who carries it.
    let thief = Station::connect(&theatre, 0, &other, PartyKind::Station).await;
    assert!(thief.connection.send_datagram(thief.gate, &seal(2)));
    theatre.counted("net_datagrams_unopened", 6).await;
    assert!(station.connection.send_datagram(station.gate, &seal(3)));
    let next = theatre.input().await;
    assert_eq!(next, Input::Heartbeat(id, heartbeat(Binding::Epoch(Epoch(2)), 3)), "the first that the core hears of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_revoked_is_told_and_its_channels_closed_within_a_second() {
    // HO-M-021
    let theatre = Theatre::new(1);
    let ((bad, serial), (good, _)) = (theatre.pki.device("station", "bad"), theatre.pki.device("station", "good"));
    let station = Station::connect(&theatre, 0, &bad, PartyKind::Station).await;
    let mut line = station.channel(&theatre, &bad).await;
    let (id, _) = theatre.opened().await;
    let other = Station::connect(&theatre, 0, &good, PartyKind::Station).await;
    let kept = other.channel(&theatre, &good).await;
    let (_, peer) = theatre.opened().await;
    assert_eq!(peer, Peer::Station(good.expert()));

    let written = Instant::now();
    theatre.pki.revoke(&[serial]);
    assert_eq!(theatre.input().await, Input::Revoked(bad.expert()));
    assert!(written.elapsed() < Duration::from_secs(1), "{:?}", written.elapsed());
    assert_eq!(theatre.input().await, Input::Gone(id));
    assert!(timeout(SOON, line.reader.next()).await.unwrap().is_err());
    assert!(!kept.writer.is_closed());

    // It does not come back, and the good one can open another.
    let tunnel = station.connection.open_tunnel(station.gate).await.unwrap();
    let trust = theatre.pki.trust();
    if let Ok(channel) = channel::connect(tunnel, &bad, &trust, "gate").await {
        let (mut reader, _writer) = channel.start::<FromGate>(SharedDedupe::default());
        assert!(timeout(SOON, reader.next()).await.unwrap().is_err());
    }
    theatre.counted("net_tunnels_refused", 1).await;
    let _second = other.channel(&theatre, &good).await;
    assert_eq!(theatre.opened().await.1, Peer::Station(good.expert()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_stations_and_signaling_get_in_and_one_certificate_gets_four_channels() {
    // HO-M-007, HO-M-023
    let theatre = Theatre::new(1);
    let (signaling, _) = theatre.pki.device("signaling", "web");
    let (me, _) = theatre.pki.device("station", "a");
    let (publisher, _) = theatre.pki.device("publisher", "p");
    let web = Station::connect(&theatre, 0, &signaling, PartyKind::Signaling).await;
    let _web = web.channel(&theatre, &signaling).await;
    let Event::Who(_, who, true) = theatre.event().await else { panic!("signaling is not told as such") };
    assert_eq!(who.certificate, "trocar://test/signaling/web");
    assert!(matches!(theatre.input().await, Input::Opened { peer: Peer::Signaling, .. }));

    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let _wrong = station.channel(&theatre, &publisher).await;
    theatre.counted("net_tunnels_refused", 1).await;
    let mut lines = Vec::new();
    for _ in 0..MAX_OF_ONE {
        lines.push(station.channel(&theatre, &me).await);
        theatre.opened().await;
    }
    let mut fifth = station.channel(&theatre, &me).await;
    assert!(timeout(SOON, fifth.reader.next()).await.unwrap().is_err());
    assert_eq!(theatre.count("net_tunnels_refused"), 2);
    drop(lines);
    let mut ids = Vec::new();
    for _ in 0..MAX_OF_ONE {
        let Input::Gone(id) = theatre.input().await else { panic!("no end") };
        ids.push(id);
    }
    let _again = station.channel(&theatre, &me).await;
    let (new, _) = theatre.opened().await;
    assert!(ids.iter().all(|old| *old < new), "no number comes twice: {new:?} after {ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stations_leave_two_of_the_sixteen_channels_to_signaling_and_one_more_waits_until_one_is_gone() {
    // HO-M-023
    let theatre = Theatre::new(1);
    let mut lines = Vec::new();
    let stations = MAX_CHANNELS - FOR_SIGNALING;
    while lines.len() < stations {
        let (me, _) = theatre.pki.device("station", &format!("s{}", lines.len()));
        let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
        for _ in 0..MAX_OF_ONE.min(stations - lines.len()) {
            let line = station.channel(&theatre, &me).await;
            theatre.opened().await;
            lines.push((line, station.connection.clone()));
        }
    }
    let (signaling, _) = theatre.pki.device("signaling", "web");
    let web = Station::connect(&theatre, 0, &signaling, PartyKind::Signaling).await;
    let mut browsers = Vec::new();
    for _ in 0..FOR_SIGNALING {
        browsers.push(web.channel(&theatre, &signaling).await);
        assert_eq!(theatre.opened().await.1, Peer::Signaling);
    }
    let mut seventeenth = web.channel(&theatre, &signaling).await;
    assert!(timeout(SOON, seventeenth.reader.next()).await.unwrap().is_err());
    let (late, _) = theatre.pki.device("station", "late");
    let station = Station::connect(&theatre, 0, &late, PartyKind::Station).await;
    let mut refused = station.channel(&theatre, &late).await;
    assert!(timeout(SOON, refused.reader.next()).await.unwrap().is_err());
    lines.pop();
    assert!(matches!(theatre.input().await, Input::Gone(_)));
    let _taken = station.channel(&theatre, &late).await;
    assert_eq!(theatre.opened().await.1, Peer::Station(late.expert()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_station_that_opens_tunnels_and_says_nothing_keeps_nobody_else_out() {
    // HO-M-023
    let theatre = Theatre::new(1);
    let (silent, _) = theatre.pki.device("station", "silent");
    let idle = Station::connect(&theatre, 0, &silent, PartyKind::Station).await;
    let again = Station::connect(&theatre, 0, &silent, PartyKind::Station).await;
    let mut tunnels = Vec::new();
    for n in 0..10 {
        let from = if n % 2 == 0 { &idle } else { &again };
        tunnels.push(from.connection.open_tunnel(from.gate).await.unwrap());
    }
    // Two of one certificate wait for a handshake, whichever of its connections they came by; the others were dropped.
    theatre.counted("net_tunnels_refused", 8).await;
    let (me, _) = theatre.pki.device("station", "a");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let _line = station.channel(&theatre, &me).await;
    assert_eq!(theatre.opened().await.1, Peer::Station(me.expert()));
    // Many certificates together leave signaling its places.
    let mut crowd = Vec::new();
    for n in 0..4 {
        let (silent, _) = theatre.pki.device("station", &format!("silent{n}"));
        let idle = Station::connect(&theatre, 0, &silent, PartyKind::Station).await;
        for _ in 0..3 {
            tunnels.push(idle.connection.open_tunnel(idle.gate).await.unwrap());
        }
        crowd.push(idle);
    }
    theatre.counted("net_tunnels_refused", 14).await;
    let (signaling, _) = theatre.pki.device("signaling", "web");
    let web = Station::connect(&theatre, 0, &signaling, PartyKind::Signaling).await;
    let _web = web.channel(&theatre, &signaling).await;
    assert_eq!(theatre.opened().await.1, Peer::Signaling);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_revoked_while_its_channel_is_down_is_told_too() {
    // HO-M-021: the holder's lease may still run.
    let theatre = Theatre::new(1);
    let (me, serial) = theatre.pki.device("station", "a");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let line = station.channel(&theatre, &me).await;
    let (id, _) = theatre.opened().await;
    drop(line);
    assert_eq!(theatre.input().await, Input::Gone(id));
    theatre.pki.revoke(&[serial]);
    assert_eq!(theatre.input().await, Input::Revoked(me.expert()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_lost_is_found_again_and_its_mirror_is_fed() {
    // HO-V-006, HO-X-007
    let mut theatre = Theatre::new(1);
    theatre.counted("net_connections", 1).await;
    theatre.relays[0].cut();
    theatre.counted("net_connections", 2).await;
    let (me, _) = theatre.pki.device("station", "a");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    assert!(station.gate != station.connection.index());
    theatre.relays[0].probe(31);
    let asked = theatre.event().await;
    assert!(matches!(asked, Event::MirrorProbe(31)), "{asked:?}");
    let status = FromGate::Nack { reason: Reason::NoHello, epoch: Epoch(1) };
    theatre.net.mirror(&status);
    let copy = timeout(SOON, theatre.relays[0].statuses.lock().await.recv()).await.unwrap().unwrap();
    assert_eq!(decode_from_gate(&hex::decode(copy).unwrap()).unwrap().1, status);
    drop(station.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_path_of_a_station_carries_the_same_bytes_and_the_keys_of_the_first() {
    // HO-C-006, HO-C-008
    let mut theatre = Theatre::new(2);
    let (me, _) = theatre.pki.device("station", "a");
    let one = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let two = Station::connect(&theatre, 1, &me, PartyKind::Station).await;
    let mut first = one.channel(&theatre, &me).await;
    let (first_id, _) = theatre.opened().await;
    let mut second = two.channel(&theatre, &me).await;
    let (second_id, _) = theatre.opened().await;
    first.writer.send(1, &hello(&theatre, me.hash(), None)).unwrap();
    second.writer.send(2, &hello(&theatre, me.hash(), Some(first.tunnel))).unwrap();
    for _ in 0..4 {
        theatre.event().await; // two HELLOs, each with its Who; the order of the two does not matter
    }

    // A reliable message on both tunnels comes once, an ACCEPT as by the first tunnel whichever was faster.
    let accept = ToGate::Accept { oid: OID, token: Token::new(theatre.pki.token(me.hash(), "dr-a", "S")).unwrap() };
    second.writer.send(3, &accept).unwrap();
    let came = theatre.input().await;
    assert!(matches!(came, Input::Message { channel, token: Some(_), .. } if channel == first_id), "{came:?}");
    first.writer.send(3, &accept).unwrap();
    first.writer.send(4, &ToGate::Probe { nonce: Nonce(1) }).unwrap();
    let came = theatre.input().await;
    assert!(matches!(came, Input::Message { message: ToGate::Probe { .. }, .. }), "{came:?}");

    // The core says one thing by both: it has one id.
    let word = FromGate::Withdraw { oid: OID };
    for id in [first_id, second_id] {
        theatre.net.send(id, &word);
    }
    assert_eq!((first.next().await, second.next().await), ((1, word.clone()), (1, word)));

    // A BEACON is sealed once; HB sealed with the first tunnel's keys counts by either path, as the first's.
    theatre.net.seal(first_id, &beacon(Binding::Offer(OID), 1));
    let (a, b) = (one.datagram().await, two.datagram().await);
    assert_eq!(a, b);
    first.keys.accept(OID).unwrap();
    assert!(first.keys.open(&a).is_ok());
    let sealed = first.keys.seal(&Datagram::Heartbeat(heartbeat(Binding::Offer(OID), 1))).unwrap();
    assert!(two.connection.send_datagram(two.gate, &sealed));
    assert_eq!(theatre.input().await, Input::Heartbeat(first_id, heartbeat(Binding::Offer(OID), 1)));

    // HO-C-009: the copy by the other path goes no further; the same one again by a path that brought it does, to be refused there.
    assert!(one.connection.send_datagram(one.gate, &sealed));
    theatre.counted("net_path_1_copies", 1).await;
    assert!(two.connection.send_datagram(two.gate, &sealed));
    assert_eq!(theatre.input().await, Input::Heartbeat(first_id, heartbeat(Binding::Offer(OID), 1)));

    // The first relay is gone: its channel ends, its keys go on by the second path.
    theatre.relays[0].cut();
    assert_eq!(theatre.input().await, Input::Gone(first_id));
    theatre.net.seal(first_id, &beacon(Binding::Offer(OID), 2));
    assert!(first.keys.open(&two.datagram().await).is_ok());
    let sealed = first.keys.seal(&Datagram::Heartbeat(heartbeat(Binding::Offer(OID), 2))).unwrap();
    assert!(two.connection.send_datagram(two.gate, &sealed));
    assert_eq!(theatre.input().await, Input::Heartbeat(first_id, heartbeat(Binding::Offer(OID), 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_falls_silent_is_told_within_a_second_and_a_station_that_leaves_is_no_alarm() {
    // HO-C-010, HO-C-011
    let theatre = Theatre::new(2);
    let (me, _) = theatre.pki.device("station", "a");
    let one = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let two = Station::connect(&theatre, 1, &me, PartyKind::Station).await;
    let first = one.channel(&theatre, &me).await;
    theatre.opened().await;
    let second = two.channel(&theatre, &me).await;
    theatre.opened().await;
    first.writer.send(1, &hello(&theatre, me.hash(), None)).unwrap();
    second.writer.send(2, &hello(&theatre, me.hash(), Some(first.tunnel))).unwrap();
    let probing = |line: &Line| {
        let writer = line.writer.clone();
        tokio::spawn(async move {
            for n in 3.. {
                let _ = writer.send(n, &ToGate::Probe { nonce: Nonce(n) });
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let (a, b) = (probing(&first), probing(&second));
    assert_eq!(theatre.protection().await, Protection::Protected);
    b.abort();
    let silent = Instant::now();
    assert_eq!(theatre.protection().await, Protection::Unprotected);
    assert!(silent.elapsed() < Duration::from_secs(1), "{:?}", silent.elapsed());
    a.abort();
    [&first, &second].into_iter().for_each(|line| line.writer.close());
    drop((first, second));
    assert_eq!(theatre.protection().await, Protection::Single);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_cannot_bind_itself_to_a_station() {
    let mut theatre = Theatre::new(1);
    let ((me, _), (other, _)) = (theatre.pki.device("station", "a"), theatre.pki.device("station", "b"));
    let mine = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let line = mine.channel(&theatre, &me).await;
    let (id, _) = theatre.opened().await;
    let thief = Station::connect(&theatre, 0, &other, PartyKind::Station).await;
    let stolen = thief.channel(&theatre, &other).await;
    theatre.opened().await;
    stolen.writer.send(1, &hello(&theatre, other.hash(), Some(line.tunnel))).unwrap();
    theatre.event().await;
    theatre.event().await;
    theatre.net.seal(id, &beacon(Binding::Offer(OID), 1));
    mine.datagram().await;
    let nothing = timeout(Duration::from_millis(200), thief.connection.datagram()).await;
    assert!(nothing.is_err(), "a BEACON for another station came");
    assert_ne!(ExpertId(other.hash().0), me.expert());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_sealed_datagrams_is_cut_to_what_a_holder_may_send() {
    // HO-P-001: the machine polices further; here a flood is kept from the core's queue.
    let mut theatre = Theatre::new(1);
    let (me, _) = theatre.pki.device("station", "a");
    let station = Station::connect(&theatre, 0, &me, PartyKind::Station).await;
    let mut line = station.channel(&theatre, &me).await;
    let (id, _) = theatre.opened().await;
    theatre.net.seal(id, &beacon(Binding::Epoch(Epoch(2)), 1));
    line.keys.grant(Epoch(2)).unwrap();
    let until = Instant::now() + SOON;
    let mut n = 0;
    while theatre.net.counters().flood.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < until, "no limit after {n} datagrams");
        n += 1;
        let sealed = line.keys.seal(&Datagram::Heartbeat(heartbeat(Binding::Epoch(Epoch(2)), n))).unwrap();
        station.connection.send_datagram(station.gate, &sealed);
        while theatre.inbox.pop(Duration::ZERO).is_some() {}
        tokio::task::yield_now().await;
    }
    assert!(n > 2_000, "a holder at 1 kHz is within it: {n}");
    let _ = theatre.inbox.push(Lane::Local, Event::Shutdown);
}

#[test]
fn what_the_configuration_lacks_is_named() {
    let pki = Pki::new();
    let (certificate, key, _) = pki.files("trocar://test/station/s", "s");
    let (right, right_key, _) = pki.files("trocar://test/gate/g", "g");
    let config = NetConfig {
        relays: vec!["127.0.0.1:4434".parse().unwrap()],
        certificate: right.clone(),
        key: right_key,
        trust: pki.directory().to_owned(),
        issuer: "x".to_owned(),
        issuer_key: pki.directory().join("issuer.pub"),
        session: SessionId::new("S").unwrap(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = |c: &NetConfig| start(c, Inbox::default(), Troubles::new(Inbox::default()), runtime.handle());
    let why = |c: NetConfig| start(&c).unwrap_err().to_string();
    assert!(why(NetConfig { relays: Vec::new(), ..config.clone() }).contains("relays: 0"));
    let station = NetConfig { certificate, key, ..config.clone() };
    assert!(why(station).contains("role is station, it has to be gate"));
    assert!(why(NetConfig { trust: "/nowhere".into(), ..config.clone() }).contains("ca.pem"));
    assert!(why(NetConfig { issuer_key: right, ..config.clone() }).contains("Ed25519"));
    assert!(why(NetConfig { key: "/nowhere".into(), ..config.clone() }).contains("private key"));
    assert!(start(&config).is_ok());
}
