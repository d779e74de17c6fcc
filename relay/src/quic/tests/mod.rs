//! quinn with our controller over the emulator's line.

mod rig;

use super::{GRANT_UNKNOWN, line_figures, set_granted};
use quinn::congestion::CubicConfig;
use rig::{Config, Seen, run};
use std::sync::Arc;
use trocar_proto::link::LinkConfig;
use trocar_proto::link::config::{Blackout, Delay, Line, Loss};
use trocar_proto::link::trace::Trace;
use trocar_proto::session::feed::Purpose;
use trocar_proto::units::Bitrate;

fn link(mbit_s: f64, one_way_ms: f64, loss_percent: f64) -> LinkConfig {
    let line = Line { mbit_s: Some(mbit_s), queue_ms: Some(300.0), ..Line::default() };
    let loss = (loss_percent > 0.0).then_some(Loss::Random { percent: loss_percent });
    LinkConfig { line: Some(line), delay: Delay::Constant { ms: one_way_ms }, loss, ..LinkConfig::default() }
}

fn config(there: LinkConfig, one_way_ms: f64, source: u64) -> Config {
    let back = link(1_000.0, one_way_ms, 0.0);
    Config { there, back, then: None, source, streams: &[], shared: false, transport: |_| (), granted: GRANT_UNKNOWN }
}

fn cubic(t: &mut quinn::TransportConfig) {
    t.congestion_controller_factory(Arc::new(CubicConfig::default()));
}

const SECONDS: u64 = 15;

fn told(name: &str, s: &Seen) {
    let (queue, age) = (|q| s.queue(3, q), |q| s.age(3, q));
    println!(
        "{name}: {:.2} Mbit/s, queue p50 {:.1} p95 {:.1} ms, frame to arrival p50 {:.1} p99 {:.1} ms",
        s.goodput(3, SECONDS) / 1e6,
        queue(0.5),
        queue(0.95),
        age(0.5),
        age(0.99)
    );
}

#[test]
fn one_per_cent_of_random_loss_costs_one_per_cent_where_cubic_collapses() {
    let c = config(link(1_000.0, 15.0, 1.0), 15.0, 50_000_000);
    let c = Config { granted: Bitrate(50_000_000), ..c };
    let (ours, theirs) = (run(&c, SECONDS), run(&Config { transport: cubic, ..c }, SECONDS));
    told("ours", &ours);
    told("Cubic", &theirs);
    let share = |s: &Seen| s.goodput(3, SECONDS) / s.offered(3, SECONDS);
    assert!(share(&ours) >= 0.97, "{}", share(&ours));
    assert!(ours.offered(3, SECONDS) >= 0.97 * 50e6, "the sender keeps frames out");
    assert!(theirs.goodput(3, SECONDS) < 0.5 * 50e6, "the control sees nothing");
}

#[test]
fn a_line_slower_than_the_grant_is_used_with_a_short_queue_where_cubic_fills_it() {
    let c = config(link(20.0, 15.0, 0.0), 15.0, 30_000_000);
    let c = Config { granted: Bitrate(30_000_000), ..c };
    let (ours, theirs) = (run(&c, SECONDS), run(&Config { transport: cubic, ..c }, SECONDS));
    told("ours", &ours);
    told("Cubic", &theirs);
    assert!(ours.queue(3, 0.95) <= 50.0, "{} ms", ours.queue(3, 0.95));
    assert!(ours.goodput(3, SECONDS) >= 0.88 * 20e6, "{}", ours.goodput(3, SECONDS));
    assert!(theirs.queue(3, 0.95) > 100.0, "the control sees nothing");
}

#[test]
fn below_what_the_line_takes_frames_go_as_over_a_line_without_control() {
    let c = config(link(20.0, 15.0, 0.0), 15.0, 15_000_000);
    let c = Config { granted: Bitrate(20_000_000), ..c };
    let s = run(&c, SECONDS);
    told("15 of 20 Mbit/s", &s);
    // A frame takes 12.5 ms on the line after 15 ms of way.
    assert!(s.age(3, 0.99) < 32.0, "{} ms", s.age(3, 0.99));
    assert!(s.goodput(3, SECONDS) >= 0.99 * s.offered(3, SECONDS));
}

/// 15 Mbit/s in four streams over one connection of a line that takes 10.
#[test]
fn of_what_shares_a_line_voices_go_before_the_scope_and_the_scope_before_the_rest() {
    use Purpose::{Room, Scope, Secondary, Voice};
    const STREAMS: [(Purpose, u64); 4] =
        [(Room, 6_000_000), (Secondary, 2_200_000), (Scope, 6_000_000), (Voice, 528_000)];
    let c = Config { streams: &STREAMS, shared: true, ..config(link(10.0, 15.0, 0.0), 15.0, 0) };
    let c = Config { granted: Bitrate(15_000_000), ..c };
    let (ours, theirs) = (run(&c, 20), run(&Config { shared: false, ..c }, 20));
    let share = |s: &Seen, n: usize| {
        let sent = (STREAMS[n].1 / 8 / 60 / 1_100).max(1) * 8 * 60 * 1_100;
        s.came(n as u8, 4, 20) / sent as f64
    };
    for (name, s) in [("by purpose", &ours), ("first come", &theirs)] {
        let shares = [0, 1, 2, 3].map(|n| share(s, n));
        let (scope, voice) = (s.age_of(2, 4, 0.99), s.age_of(3, 4, 0.99));
        println!("{name}: room, secondary, scope, voice {shares:.3?}; p99 scope {scope:.0} ms, voice {voice:.0} ms");
    }
    assert!(share(&ours, 3) >= 0.99 && share(&ours, 2) >= 0.99, "voice and scope");
    assert!(share(&ours, 1) >= 0.9 && share(&ours, 0) <= 0.25, "the others");
    let age = |s: &Seen| s.age_of(2, 4, 0.99);
    assert!(age(&ours) < 0.7 * age(&theirs), "{} ms, {} ms", age(&ours), age(&theirs));
    assert!(share(&theirs, 2) < 0.9, "the control: who comes first");
}

/// So much granted and sent on a way that is another one from the sixth second on.
fn moved(before: LinkConfig, one_way_ms: f64, then: LinkConfig) -> Seen {
    let c = config(before, one_way_ms, 20_000_000);
    run(&Config { then: Some((6, then)), granted: Bitrate(20_000_000), ..c }, SECONDS)
}

fn jittery(one_way_ms: f64, more_ms: f64) -> LinkConfig {
    let delay = Delay::Uniform { min_ms: one_way_ms, max_ms: one_way_ms + more_ms };
    LinkConfig { delay, ..link(1_000.0, one_way_ms, 0.0) }
}

/// A radio cell, or a router's other line: the delay grows at once, and what was paced for the shorter way is not held back.
#[test]
fn a_longer_way_costs_no_frame() {
    for (before, after) in [(0.2, 20.2), (1.0, 11.0), (5.0, 25.0), (15.0, 35.0), (15.0, 95.0)] {
        for jitter in [0.0, 4.0] {
            let s = moved(jittery(before, jitter), before, jittery(after, jitter));
            let oldest = s.age(6, 0.999_99);
            println!("{before} ms then {after} ms, jitter {jitter} ms: {} kept out, oldest {oldest:.1} ms", s.kept_out);
            assert_eq!(s.kept_out, 0, "{before} ms then {after} ms, jitter {jitter} ms");
            assert!(oldest < after + jitter + 100.0, "{oldest} ms");
        }
    }
    let s = moved(link(30.0, 15.0, 0.0), 15.0, link(5.0, 15.0, 0.0));
    println!("30 then 5 Mbit/s: {} kept out, queue p95 {:.1} ms", s.kept_out, s.queue(8, 0.95));
    assert!(s.kept_out > 200, "the control: a way that takes a quarter of it");
    assert!(s.queue(8, 0.95) < 50.0, "whose queue is not taken for its length: {} ms", s.queue(8, 0.95));
}

/// Dark for so long, again and again.
const fn dark(ms: f64) -> Blackout {
    Blackout { start_ms: 5_000.0, length_ms: ms, every_ms: Some(1_500.0) }
}

/// 20 Mbit/s on a line that takes twice that and is dark in both directions.
fn darkened(ms: f64, granted: u64, transport: fn(&mut quinn::TransportConfig)) -> Seen {
    let c = config(LinkConfig { blackout: vec![dark(ms)], ..link(40.0, 15.0, 0.0) }, 15.0, 20_000_000);
    let back = LinkConfig { blackout: vec![dark(ms)], ..c.back };
    run(&Config { back, transport, granted: Bitrate(granted * 1_000_000), ..c }, SECONDS)
}

/// What comes first after each dark time: how long after its end, and how old, in milliseconds; the largest ones.
fn after(ms: f64, s: &Seen) -> (f64, f64) {
    let all = s.after_dark(&dark(ms));
    assert!(all.len() >= 5, "{all:?}");
    all.iter().fold((0.0, 0.0), |most: (f64, f64), a| (most.0.max(a.0), most.1.max(a.1)))
}

/// A frame every 16.7 ms, 15 ms of way.
#[test]
fn after_the_dark_the_next_frame_is_there_at_once() {
    for ms in [50.0, 100.0, 200.0, 300.0, 500.0] {
        for granted in [20, 40] {
            let s = darkened(ms, granted, |_| ());
            let (first, age) = after(ms, &s);
            println!(
                "dark for {ms} ms, {granted} Mbit/s granted: {} kept out; first after {first} ms, {age} ms old",
                s.kept_out
            );
            assert_eq!(s.kept_out, 0, "{ms} ms, {granted} Mbit/s granted");
            assert!(first < 35.0, "{first} ms after {ms} ms, {granted} Mbit/s granted");
        }
    }
    let s = darkened(300.0, 40, cubic);
    let (first, age) = after(300.0, &s);
    println!("Cubic, dark for 300 ms: {} kept out; first after {first} ms, {age} ms old", s.kept_out);
    assert!(s.kept_out > 50 && first > 100.0 && age > 200.0, "the control: {first} ms, {age} ms");
}

/// A line that loses nothing and holds everything back for 300 ms: what was sent meanwhile is a queue then.
fn held_back(mbit_s: u32) -> Seen {
    // Each chance is one for 1,504 bytes.
    let chances = |ms: u32| (ms * mbit_s / 12 - (ms - 1) * mbit_s / 12) as usize;
    let carried = (1..=SECONDS as u32 * 1_000).filter(|ms| !(6_000..6_300).contains(ms));
    let trace: String = carried.flat_map(|ms| std::iter::repeat_n(format!("{ms}\n"), chances(ms))).collect();
    let trace = Some(Trace::parse(&trace).unwrap());
    let there =
        LinkConfig { line: Some(Line { trace, queue_ms: Some(1_000.0), ..Line::default() }), ..link(40.0, 15.0, 0.0) };
    let c = config(there, 15.0, 20_000_000);
    run(&Config { granted: Bitrate(40_000_000), ..c }, SECONDS)
}

#[test]
fn what_a_line_held_back_is_drained_in_less_time_than_it_was_held() {
    let late_for = |s: &Seen| (s.last_above(100_000) - 6_300_000.0) / 1e3;
    let s = held_back(40);
    println!("held back for 300 ms: {} kept out, older than 100 ms for {} ms after it", s.kept_out, late_for(&s));
    assert_eq!(s.kept_out, 0);
    assert!(late_for(&s) < 300.0, "{} ms", late_for(&s));
    let s = held_back(22);
    println!("with little to spare: {} kept out, for {} ms", s.kept_out, late_for(&s));
    assert!(late_for(&s) > 300.0, "the control: {} ms", late_for(&s));
}

#[test]
fn a_lan_is_not_paced() {
    let c = config(link(1_000.0, 0.1, 0.0), 0.1, 80_000_000);
    let c = Config { granted: Bitrate(80_000_000), ..c };
    let s = run(&c, SECONDS);
    told("LAN", &s);
    // A frame takes 1.4 ms on the line; paced at twice the grant it would take 8 ms.
    assert!(s.age(1, 0.99) < 2.5, "{} ms", s.age(1, 0.99));
}

#[tokio::test]
async fn the_grant_and_the_figures_pass_through_a_connection() {
    let id = rig::identity();
    let at = "127.0.0.1:0".parse().unwrap();
    let server = quinn::Endpoint::server(super::server_config(id.duplicate()).unwrap(), at).unwrap();
    let mut client = quinn::Endpoint::client(at).unwrap();
    client.set_default_client_config(super::client_config(id).unwrap());
    let (near, far) = tokio::join!(
        async { client.connect(server.local_addr().unwrap(), "localhost").unwrap().await.unwrap() },
        async { server.accept().await.unwrap().await.unwrap() }
    );
    assert_eq!(line_figures(&near).unwrap().granted, GRANT_UNKNOWN);
    set_granted(&near, Bitrate(7_000_000));
    assert_eq!(line_figures(&near).unwrap().granted, Bitrate(7_000_000));
    assert_eq!(line_figures(&far).unwrap().granted, GRANT_UNKNOWN, "each end has its own");
    // The next packet takes it over.
    near.send_datagram(vec![0; 100].into()).unwrap();
    assert_eq!(far.read_datagram().await.unwrap().len(), 100);
    let f = line_figures(&near).unwrap();
    assert_eq!((f.target, f.granted), (Bitrate(7_000_000), Bitrate(7_000_000)), "{f:?}");
}
