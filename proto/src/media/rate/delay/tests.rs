//! The controller against the emulator's line, heard of by transport-wide feedback and by acknowledgements. What is
//! asserted has a margin over what is printed.

use super::rig::{Back, Rig, Seen, Source, bursts, dark, jitter, line, random_loss, stalls, wide};
use super::*;

const TWCC: Back = Back::Twcc { lost: 0.0 };
const LOSSY_TWCC: Back = Back::Twcc { lost: 0.2 };

fn mbit(m: f64) -> Bitrate {
    Bitrate((m * 1e6) as u64)
}

fn granted(m: f64) -> DelayController {
    DelayController::new(RateConfig { granted: mbit(m), min: Bitrate(200_000), max: mbit(2.0 * m) })
}

/// Always more, frames of an encoder that keeps to the target, frames of one that does not know it.
fn sources(most: f64) -> [Source; 3] {
    let frames = |most, follows| Source::Frames { fps: 60, most, follows };
    [Source::Greedy, frames(400_000_000, true), frames(mbit(most).0, false)]
}

fn alone(rig: Rig, grant: f64, source: Source, back: Back, seconds: f64) -> Seen {
    rig.with(granted(grant), source, back, 0.0).run(seconds).senders.remove(0).seen
}

/// A controller that believes in its grant whatever happens: the negative control.
struct Deaf(Bitrate);

impl RateController for Deaf {
    fn handle_results(&mut self, _now: Micros, _results: &[PacketResult]) {}
    fn handle_round_trip(&mut self, _now: Micros, _rtt_us: u64) {}
    fn target(&self) -> Bitrate {
        self.0
    }
    fn pacing_rate(&self, _now: Micros) -> Bitrate {
        self.0
    }
    fn queueing_delay_us(&self) -> u64 {
        0
    }
    fn state(&self) -> LineState {
        LineState::Clear
    }
}

/// Goodput as a share of the line, 95th percentile of the queue in milliseconds, from the tenth second on.
fn settled(s: &Seen, mbit_s: f64, end: f64) -> (f64, f64) {
    (s.goodput(10.0, end) / 1e6 / mbit_s, s.queueing_p95(10.0, end))
}

#[test]
fn too_high_a_grant_is_corrected_within_a_second_and_the_line_is_used_with_a_short_queue() {
    for (mbit_s, grant) in [(3.0, 6.0), (3.0, 20.0), (20.0, 40.0), (100.0, 200.0)] {
        for back in [TWCC, LOSSY_TWCC, Back::Acks] {
            for source in sources(grant) {
                let s = alone(Rig::new(&[(0, line(mbit_s, 300.0, 15.0))], 15.0), grant, source, back, 30.0);
                let (share, p95) = settled(&s, mbit_s, 30.0);
                let reached = s.settles(0.9, mbit_s * 1e6);
                println!("{mbit_s} of {grant} Mbit/s, {back:?}, {source:?}: {reached:.1} s, {share:.3}, {p95:.1} ms");
                assert!(reached < 3.0, "{reached} s");
                assert!(share > 0.8, "{share} of the line");
                assert!(p95 < 60.0, "queue of {p95} ms");
            }
        }
    }
}

#[test]
fn a_controller_that_ignores_delay_leaves_the_queue_full() {
    let rig = Rig::new(&[(0, line(3.0, 300.0, 15.0))], 15.0);
    let s = rig.with(Deaf(mbit(20.0)), Source::Greedy, TWCC, 0.0).run(15.0).senders.remove(0).seen;
    assert!(s.queueing_p95(5.0, 15.0) > 250.0, "the check sees nothing");
    assert!(s.settles(0.9, 3e6).is_infinite());
}

#[test]
fn a_line_that_takes_more_than_the_grant_is_found_within_ten_seconds() {
    for (mbit_s, grant) in [(20.0, 12.0), (100.0, 60.0)] {
        for back in [TWCC, Back::Acks] {
            let s = alone(Rig::new(&[(0, line(mbit_s, 200.0, 15.0))], 15.0), grant, Source::Greedy, back, 30.0);
            let reached = s.reaches(0.0, 0.9e6 * mbit_s);
            println!("{grant} → {mbit_s} Mbit/s, {back:?}: {reached:.1} s");
            assert!(reached < 10.0, "{reached} s");
            assert!(s.lowest(0.0, 5.0) >= 0.999 * grant * 1e6, "starts at the grant");
            assert!(s.queueing_p95(0.0, 30.0) < 40.0);
        }
    }
}

#[test]
fn rates_from_half_to_four_hundred_mbit_and_round_trips_up_to_300_ms() {
    for rtt in [0.1, 2.0, 100.0, 300.0] {
        for (mbit_s, grant) in [(0.5, 1.0), (3.0, 6.0), (20.0, 30.0), (380.0, 400.0)] {
            for back in [TWCC, Back::Acks] {
                let rig = Rig::new(&[(0, line(mbit_s, 300.0, rtt / 2.0))], rtt / 2.0);
                let (share, p95) = settled(&alone(rig, grant, sources(grant)[1], back, 25.0), mbit_s, 25.0);
                println!("{mbit_s} Mbit/s, {rtt} ms, {back:?}: {share:.3}, {p95:.1} ms");
                assert!(share > 0.75 && p95 < 75.0, "{share}, {p95} ms");
            }
        }
    }
}

#[test]
fn random_loss_does_not_lower_the_rate() {
    for (percent, least) in [(0.1, 0.95), (1.0, 0.95), (5.0, 0.95), (10.0, 0.91)] {
        for back in [TWCC, LOSSY_TWCC, Back::Acks] {
            for source in sources(20.0) {
                let s = alone(Rig::new(&[(0, random_loss(percent, wide(15.0)))], 15.0), 20.0, source, back, 40.0);
                let (lowest, mean) = (s.lowest(0.0, 40.0) / 20e6, s.goodput(2.0, 40.0) / 20e6);
                println!("{percent} %, {back:?}, {source:?}: lowest {lowest:.3}, goodput {mean:.3}");
                assert!(lowest >= least, "{lowest}");
                assert!(mean >= (1.0 - percent / 100.0) * 0.985, "{mean}");
            }
        }
    }
}

#[test]
fn losses_in_bursts_do_not_lower_the_rate() {
    for (percent, packets) in [(2.0, 20.0), (5.0, 50.0)] {
        for back in [TWCC, Back::Acks] {
            for source in sources(20.0) {
                let s = alone(Rig::new(&[(0, bursts(percent, packets, wide(15.0)))], 15.0), 20.0, source, back, 40.0);
                let (lowest, mean) = (s.lowest(0.0, 40.0) / 20e6, s.target(0.0, 40.0) / 20e6);
                println!("{percent} % by {packets}, {back:?}, {source:?}: lowest {lowest:.3}, mean {mean:.3}");
                assert!(lowest >= 0.85 && mean >= 0.99, "{lowest}, {mean}");
            }
        }
    }
}

#[test]
fn a_quarter_lost_for_seconds_does_lower_it() {
    let s = alone(Rig::new(&[(0, random_loss(35.0, wide(15.0)))], 15.0), 20.0, sources(20.0)[2], TWCC, 20.0);
    assert!(s.lowest(0.0, 10.0) < 0.75 * 20e6, "{}", s.lowest(0.0, 10.0));
    assert!(s.lowest(0.0, 20.0) > 0.3 * 20e6, "and no spiral: {}", s.lowest(0.0, 20.0));
}

#[test]
fn a_policer_that_drops_without_delay_is_found() {
    for (mbit_s, bucket, grant) in
        [(145.0, 100_000, 150.0), (145.0, 1_500_000, 150.0), (18.0, 30_000, 20.0), (5.0, 30_000, 20.0)]
    {
        for back in [TWCC, Back::Acks] {
            for source in sources(grant) {
                let s = alone(Rig::new(&[(0, wide(15.0))], 15.0).policed(mbit_s, bucket), grant, source, back, 30.0);
                let (target, good) = (s.target(6.0, 10.0) / mbit_s / 1e6, s.goodput(6.0, 30.0) / mbit_s / 1e6);
                let lost = 1.0 - s.goodput(6.0, 10.0) / s.sent(6.0, 10.0);
                println!(
                    "{grant} → {mbit_s} Mbit/s, {bucket} B, {back:?}, {source:?}: {target:.3}, {good:.3}, lost {lost:.4}"
                );
                assert!((0.85..1.02).contains(&target), "{target}");
                assert!(good > 0.9, "{good}");
                assert!(lost < 0.05, "{lost} lost");
            }
        }
    }
}

#[test]
fn jitter_of_30_ms_is_no_queue() {
    for (reorders, back) in [(true, TWCC), (false, TWCC), (false, LOSSY_TWCC), (false, Back::Acks)] {
        for source in sources(20.0) {
            let s = alone(Rig::new(&[(0, jitter(30.0, reorders, wide(15.0)))], 15.0), 20.0, source, back, 40.0);
            let (mean, good) = (s.target(0.0, 40.0) / 20e6, s.goodput(2.0, 40.0) / 20e6);
            println!("reorders {reorders}, {back:?}, {source:?}: mean {mean:.3}, goodput {good:.3}");
            assert!(mean > 0.85 && good > 0.85, "{mean}, {good}");
        }
    }
}

#[test]
fn a_clock_that_drifts_is_no_queue() {
    for ppm in [-200.0, 100.0, 200.0] {
        let rig = Rig::new(&[(0, wide(15.0))], 15.0).drifting(ppm);
        let s = alone(rig, 20.0, sources(20.0)[2], TWCC, 60.0);
        println!("{ppm} ppm: lowest {:.3}", s.lowest(0.0, 60.0) / 20e6);
        assert!(s.lowest(0.0, 60.0) > 0.95 * 20e6);
    }
}

#[test]
fn another_route_is_taken_for_a_queue_for_a_moment_only() {
    for (after, least) in [(55.0, 0.95), (5.0, 0.999)] {
        for back in [TWCC, Back::Acks] {
            for source in sources(20.0) {
                let s = alone(Rig::new(&[(0, wide(15.0)), (8_000, wide(after))], 15.0), 20.0, source, back, 20.0);
                let mean = s.target(14.0, 20.0) / 20e6;
                println!("15 → {after} ms, {back:?}, {source:?}: {mean:.3}, lowest {:.3}", s.lowest(0.0, 20.0) / 20e6);
                assert!(mean >= least, "{mean}");
            }
        }
    }
}

/// What a full line kept during a stall grew at once as well and stays: it is a queue all the same, and goes when less is sent.
#[test]
fn a_queue_that_came_at_once_is_not_taken_for_another_route() {
    for (mbit_s, grant) in [(20.0, 20.0), (19.0, 20.0), (50.0, 50.0)] {
        for stall in [20, 50, 90] {
            for back in [TWCC, Back::Acks] {
                for source in sources(grant) {
                    let rig = Rig::new(&[(0, stalls(mbit_s, 15.0, 8_000, stall))], 15.0);
                    let s = alone(rig, grant, source, back, 20.0);
                    let (at, later) = (s.queueing(8.0, 8.3, 0.95), s.queueing(9.5, 20.0, 0.5));
                    println!(
                        "{mbit_s} of {grant} Mbit/s, {stall} ms, {back:?}, {source:?}: {at:.1} ms, then {later:.1} ms"
                    );
                    assert!(at > 0.7 * stall as f64, "the stall is there: {at} ms");
                    assert!(later < 25.0, "the queue stands: {later} ms");
                }
            }
        }
    }
}

#[test]
fn a_blackout_changes_nothing() {
    for back in [TWCC, LOSSY_TWCC, Back::Acks] {
        for source in sources(20.0) {
            let s = alone(Rig::new(&[(0, dark(8_000.0, 2_000.0, wide(15.0)))], 15.0), 20.0, source, back, 15.0);
            assert!(s.lowest(0.0, 15.0) >= 0.99 * 20e6, "{}", s.lowest(0.0, 15.0));
            assert!(s.goodput(11.0, 15.0) >= 0.98 * 20e6, "{back:?} {source:?}");
        }
    }
}

#[test]
fn a_line_that_becomes_slow_and_fast_again_is_followed() {
    let lines = [(0, line(30.0, 200.0, 15.0)), (10_000, line(5.0, 200.0, 15.0)), (20_000, line(30.0, 200.0, 15.0))];
    for back in [TWCC, LOSSY_TWCC, Back::Acks] {
        for source in sources(20.0) {
            let s = alone(Rig::new(&lines, 15.0), 20.0, source, back, 40.0);
            let (low, p95, again) = (s.goodput(13.0, 20.0) / 5e6, s.queueing_p95(13.0, 20.0), s.reaches(20.0, 18e6));
            println!("{back:?}, {source:?}: {low:.3} of 5 Mbit/s, queue {p95:.1} ms, back after {again:.1} s");
            assert!(low > 0.85 && p95 < 60.0, "{low}, {p95} ms");
            assert!(again < 13.0, "{again} s");
        }
    }
}

#[test]
fn two_share_alike_whoever_came_first() {
    for back in [TWCC, Back::Acks] {
        for second in [0.0, 10.0] {
            for source in [sources(0.0)[0], sources(0.0)[1]] {
                let rig = Rig::new(&[(0, line(20.0, 200.0, 15.0))], 15.0);
                let rig =
                    rig.with(granted(20.0), source, back, 0.0).with(granted(20.0), source, back, second).run(60.0);
                let of = |i: usize| rig.senders[i].seen.goodput(30.0, 60.0) / 1e6;
                let p95 = rig.senders[0].seen.queueing_p95(30.0, 60.0);
                println!(
                    "{back:?}, {source:?}, second at {second} s: {:.2} and {:.2} Mbit/s, {p95:.1} ms",
                    of(0),
                    of(1)
                );
                assert!((7.5..12.5).contains(&of(0)) && (7.5..12.5).contains(&of(1)), "{} {}", of(0), of(1));
                assert!(of(0) + of(1) > 18.0 && p95 < 40.0);
            }
        }
    }
}

#[test]
fn what_is_not_used_does_not_grow_beyond_half_as_much_again() {
    // An encoder of 5 Mbit/s of a grant of 20; then one of 20 that a slow line had brought down to 3.
    let s = alone(Rig::new(&[(0, wide(15.0))], 15.0), 20.0, sources(5.0)[2], TWCC, 30.0);
    assert!(s.lowest(0.0, 30.0) == 20e6 && s.target(0.0, 30.0) == 20e6, "the grant stays where it was");
    let lines = [(0, line(3.0, 200.0, 15.0)), (10_000, wide(15.0))];
    let s = alone(Rig::new(&lines, 15.0), 20.0, sources(2.5)[2], TWCC, 5.0);
    assert!(s.target(4.0, 5.0) == 20e6);
}

#[test]
fn the_pace_is_twice_the_grant_and_a_lan_is_not_paced_until_it_shows_a_queue() {
    let mut c = granted(20.0);
    assert_eq!(c.pacing_rate(Micros(0)), mbit(40.0), "nothing is known");
    c.handle_round_trip(Micros(0), 30_000);
    assert_eq!(c.pacing_rate(Micros(0)), mbit(40.0));
    let mut lan = granted(20.0);
    lan.handle_round_trip(Micros(0), 300);
    assert_eq!(lan.pacing_rate(Micros(0)), Bitrate(1_000_000_000));
    // One report that waited at a busy end says nothing of the line; a line that has grown longer is paced.
    let open = |c: &DelayController| c.pacing_rate(Micros(0)) == Bitrate(1_000_000_000);
    let paces: Vec<bool> = [40_000, 300, 2_500, 2_500, 2_500, 2_500]
        .map(|rtt| {
            lan.handle_round_trip(Micros(0), rtt);
            open(&lan)
        })
        .to_vec();
    assert_eq!(paces, [true, true, true, true, true, false]);
    let mut fast = granted(400.0);
    fast.handle_round_trip(Micros(0), 300);
    assert_eq!(fast.pacing_rate(Micros(0)), mbit(4_000.0));
    let rig = Rig::new(&[(0, line(10.0, 200.0, 0.05))], 0.05).with(granted(20.0), Source::Greedy, TWCC, 0.0).run(10.0);
    let c = &rig.senders[0].control;
    assert!(c.pacing_rate(Micros(10_000_000)).0 <= 15_000_000, "{:?}", c.pacing_rate(Micros(10_000_000)));
    assert!(rig.senders[0].seen.states.contains(&LineState::Congested));
}

#[test]
fn results_of_any_kind_are_no_panic_and_leave_the_rate_within_its_bounds() {
    let mut rng = crate::link::rng::Rng::new(17);
    for _ in 0..40 {
        let mut c = granted(20.0);
        let mut now = 0_u64;
        for _ in 0..3_000 {
            now = now.saturating_add(u64::from(rng.below(60_000)));
            let mut odd = |n: u64| if rng.chance(0.01) { rng.next_u64() } else { n + u64::from(rng.below(9_000)) };
            let (sent, arrived) = (odd(now), odd(now).cast_signed());
            let bytes = if rng.chance(0.02) { u32::MAX } else { rng.below(2_000) };
            let arrived = rng.chance(0.8).then_some(arrived);
            c.handle_results(Micros(now), &[PacketResult { bytes, sent: Micros(sent), arrived }]);
            c.handle_round_trip(Micros(now), if rng.chance(0.01) { rng.next_u64() } else { 30_000 });
            assert!((200_000..=40_000_000).contains(&c.target().0), "{:?}", c.target());
            let _ = (c.pacing_rate(Micros(now)), c.queueing_delay_us(), c.state());
        }
    }
}
