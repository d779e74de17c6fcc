//! When a missing packet is asked for, again, and given up.

use super::*;
use crate::link::rng::Rng;
use std::collections::BTreeSet;

fn ms(n: u64) -> Micros {
    Micros(n * 1_000)
}

fn asked(g: &mut NackGenerator, now: Micros) -> Vec<u16> {
    g.poll(now).unwrap_or(&[]).to_vec()
}

fn asked_at(g: &mut NackGenerator, at_ms: u64) -> Vec<u16> {
    asked(g, ms(at_ms))
}

#[test]
fn a_little_reordering_is_not_asked_for() {
    let mut g = NackGenerator::new(200_000);
    for seq in [65_534, 1, 0, 65_535, 2] {
        g.handle_packet(ms(0), seq);
        assert_eq!(g.poll(ms(0)), None);
    }
    let c = g.counters();
    assert_eq!((c.missing, c.reordered, c.asked), (2, 2, 0));
}

#[test]
fn a_hole_is_asked_for_after_three_more_packets_or_five_milliseconds() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 65_534);
    g.handle_packet(ms(0), 0);
    g.handle_packet(ms(0), 1);
    assert_eq!(g.poll(ms(0)), None);
    g.handle_packet(ms(0), 2);
    assert_eq!(asked(&mut g, ms(0)), vec![65_535]);
    g.handle_packet(ms(1), 4);
    assert_eq!(g.poll(ms(5)), None);
    assert_eq!(asked(&mut g, ms(6)), vec![3]);
}

#[test]
fn it_is_asked_for_again_after_one_and_a_half_round_trips_while_that_fits_the_budget() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 1);
    g.handle_packet(ms(0), 5);
    let times: Vec<_> = (0..400).filter(|t| g.poll(ms(*t)).is_some()).collect();
    // 2 at once, 3 and 4 after 5 ms; each again after 75 ms; not after 160 ms, because 50 ms would be late.
    assert_eq!(times, vec![0, 5, 75, 80, 150]);
    let c = g.counters();
    assert_eq!((c.asked, c.asked_again, c.given_up, g.missing()), (3, 4, 3, 0));
}

/// Every tenth of 4,000 packets, one each millisecond, is lost, and comes `round_trip_ms` after it was first asked for,
/// and again for each further time. Returns how often numbers were asked for, from the second half alone.
fn lossy(g: &mut NackGenerator, round_trip_ms: u64) -> (u64, u64) {
    let mut answers: VecDeque<(u64, u16)> = VecDeque::new();
    let mut half = NackCounters::default();
    for t in 0..4_000_u64 {
        if t == 2_000 {
            half = g.counters();
        }
        while let Some((_, seq)) = answers.pop_front_if(|a| a.0 <= t) {
            g.handle_packet(ms(t), seq);
        }
        if t % 10 != 9 {
            g.handle_packet(ms(t), t as u16);
        }
        while let Some(list) = g.poll(ms(t)) {
            answers.extend(list.iter().map(|s| (t + round_trip_ms, *s)));
        }
    }
    let c = g.counters();
    (c.asked - half.asked, c.asked_again - half.asked_again)
}

#[test]
fn one_lost_packet_is_asked_for_once_whatever_the_round_trip() {
    for round_trip in [2, 20, 50, 75, 100, 150, 180] {
        let mut g = NackGenerator::new(200_000);
        let (asked, again) = lossy(&mut g, round_trip);
        assert!((199..=201).contains(&asked), "{round_trip} ms: {asked}");
        assert_eq!(again, 0, "{round_trip} ms");
        let known = g.round_trip_us(ms(4_000));
        assert!((round_trip * 1_000..round_trip * 1_000 + 1_100).contains(&known), "{round_trip} ms: {known}");
    }
}

#[test]
fn a_round_trip_that_does_not_fit_the_budget_is_learnt_and_then_not_asked_before_it_is_forgotten() {
    let mut g = NackGenerator::new(100_000);
    let (asked, again) = lossy(&mut g, 150);
    assert_eq!((asked, again), (0, 0));
    assert_eq!(g.round_trip_us(ms(4_000)), 150_000);
    assert!(g.counters().asked > 0, "that is how it was learnt");
    g.begin_source();
    for (seq, at) in [(1, 4_000), (3, 4_000), (5, 9_000)] {
        g.handle_packet(ms(at), seq);
        assert_eq!(g.poll(ms(at + 6)), None);
    }
    g.handle_packet(ms(11_000), 7);
    assert_eq!(asked_at(&mut g, 11_006), vec![6], "the way may have become shorter");
}

#[test]
fn a_shorter_budget_than_the_first_round_trip_still_asks() {
    let mut g = NackGenerator::new(30_000);
    g.handle_packet(ms(0), 1);
    g.handle_packet(ms(0), 3);
    assert_eq!(asked_at(&mut g, 5), vec![2]);
}

#[test]
fn another_source_does_not_meet_the_numbers_of_the_one_before() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 100);
    g.handle_packet(ms(0), 110);
    g.begin_source();
    assert_eq!((g.missing(), g.counters().given_up), (0, 9));
    // Near the old numbers, above and below them: nothing was skipped.
    g.handle_packet(ms(1), 600);
    assert_eq!(g.poll(ms(20)), None);
    g.begin_source();
    g.handle_packet(ms(21), 90);
    g.handle_packet(ms(21), 92);
    assert_eq!(asked_at(&mut g, 30), vec![91]);
}

#[test]
fn what_comes_again_is_recovered_once() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 1);
    g.handle_packet(ms(0), 6);
    assert_eq!(asked(&mut g, ms(5)), vec![2, 3, 4, 5]);
    for seq in [3, 3, 2, 6, 1] {
        g.handle_packet(ms(20), seq);
    }
    assert_eq!(asked(&mut g, ms(100)), vec![4, 5]);
    assert_eq!((g.counters().recovered, g.counters().reordered), (2, 0));
}

#[test]
fn a_call_names_128_numbers_and_the_next_one_goes_on() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 0);
    g.handle_packet(ms(0), 301);
    let lengths: Vec<_> = std::iter::from_fn(|| g.poll(ms(9)).map(<[u16]>::len)).collect();
    assert_eq!(lengths, vec![128, 128, 44]);
}

#[test]
fn no_more_than_2048_are_held_and_a_long_jump_starts_anew() {
    let mut g = NackGenerator::new(200_000);
    g.handle_packet(ms(0), 0);
    g.handle_packet(ms(0), 3_000);
    assert_eq!((g.missing(), g.counters().given_up), (MAX_MISSING, 2_999 - MAX_MISSING as u64));
    for far in [6_001, 60_000, 20_000] {
        g.handle_packet(ms(1), far);
        assert_eq!((g.missing(), g.poll(ms(50))), (0, None));
    }
    assert_eq!(g.counters().given_up, 2_999);
    g.handle_packet(ms(60), 20_002);
    assert_eq!(asked(&mut g, ms(70)), vec![20_001]);
}

/// 100 Mbit/s (10,000 packets/s), 2 % loss both ways, round trip 30 ms, budget 200 ms.
#[test]
fn at_a_high_rate_with_loss_nearly_everything_comes_back_in_time() {
    let mut g = NackGenerator::new(200_000);
    let mut rng = Rng::new(11);
    let mut answers: VecDeque<(Micros, u16)> = VecDeque::new();
    let mut lost = BTreeSet::new();
    for n in 0..100_000_u64 {
        let now = Micros(n * 100);
        while answers.front().is_some_and(|a| a.0 <= now) {
            let seq = answers.pop_front().unwrap().1;
            lost.remove(&seq);
            g.handle_packet(now, seq);
        }
        let seq = (n % 65_536) as u16;
        if rng.chance(0.02) {
            lost.insert(seq);
        } else {
            g.handle_packet(now, seq);
        }
        while let Some(list) = g.poll(now) {
            answers.extend(list.iter().filter(|_| !rng.chance(0.04)).map(|s| (now.plus(30_000), *s)));
        }
    }
    let c = g.counters();
    assert_eq!(c.missing, c.recovered + c.reordered + c.given_up + g.missing() as u64);
    assert!(c.missing > 1_800, "{c:?}");
    assert!(c.given_up * 1_000 < c.missing, "{c:?}");
    assert_eq!(c.reordered, 0);
}

#[test]
fn a_measured_round_trip_is_used_as_it_is_and_nothing_is_learnt() {
    let mut g = NackGenerator::sized(100_000, 5_000);
    g.set_round_trip(5_000, 250);
    g.handle_packet(ms(0), 1);
    g.handle_packet(ms(0), 3);
    let times: Vec<_> = (0..1_000).filter(|t| g.poll(Micros(t * 100)).is_some()).collect();
    // After 1.375 ms, a quarter of the way there and back; then after 5 + 4 * 0.25 + 2 = 8 ms, twice, then 16 ms and 32 ms.
    assert_eq!(times, [14, 94, 174, 254, 414, 734]);
    g.handle_packet(ms(95), 2);
    assert_eq!(g.round_trip_us(ms(95)), 5_500);
}

#[test]
fn room_for_what_is_missing_goes_with_the_rate() {
    let mut g = NackGenerator::sized(100_000, 50_000);
    g.handle_packet(ms(0), 0);
    // A tenth of a second of 400 Mbit/s is dark.
    g.handle_packet(ms(0), 4_500);
    assert_eq!(g.missing(), 4_499);
    let mut asked = 0;
    while let Some(list) = g.poll(ms(5)) {
        asked += list.len();
    }
    assert_eq!(asked, 4_499);
}

#[test]
fn what_may_come_by_another_path_is_not_asked_for_before_that_had_its_time() {
    let mut g = NackGenerator::sized(150_000, 5_000);
    g.set_round_trip(30_000, 500);
    g.set_patience(50_000);
    (0..10).filter(|s| *s != 4).for_each(|s| assert_eq!(g.handle_packet(ms(0), s), Arrival::Newest));
    assert_eq!(g.poll(Micros(49_999)), None);
    assert_eq!(asked_at(&mut g, 50), vec![4]);
    let mut g = NackGenerator::sized(150_000, 5_000);
    g.set_patience(50_000);
    for s in (0..10).filter(|s| *s != 4) {
        g.handle_packet(ms(0), s);
    }
    assert_eq!(g.handle_packet(ms(40), 4), Arrival::Reordered);
}

#[test]
fn what_comes_after_it_was_given_up_is_late_and_what_comes_twice_is_not() {
    let mut g = NackGenerator::new(50_000);
    g.handle_packet(ms(0), 1);
    g.handle_packet(ms(0), 4);
    assert!(g.handle_restored(2));
    assert!(!g.handle_restored(2));
    assert_eq!(g.poll(ms(51)), None);
    assert_eq!(
        [3, 3, 2, 4].map(|s| g.handle_packet(ms(60), s)),
        [Arrival::Late, Arrival::Other, Arrival::Other, Arrival::Other]
    );
}

#[test]
fn a_jump_of_thousands_is_asked_for_whole_and_each_number_is_looked_at_once() {
    let mut g = NackGenerator::sized(200_000, 50_000);
    g.handle_packet(ms(0), 0);
    g.handle_packet(ms(0), 10_001);
    g.handle_packet(ms(0), 10_004);
    let named = |g: &mut NackGenerator, at| (0..200).map_while(|_| g.poll(at).map(<[u16]>::len)).sum::<usize>();
    assert_eq!((named(&mut g, ms(0)), g.missing()), (10_000, 10_002), "the last two may be out of order");
    // Each call looks again at the number that had no room in the one before.
    assert!(g.steps <= 10_002 + 10_000 / MAX_ASKED, "{}", g.steps);
    assert_eq!(named(&mut g, ms(0)), 0);
    g.handle_packet(ms(0), 10_007);
    assert_eq!(asked(&mut g, ms(0)), vec![10_002, 10_003], "what a packet changed is seen at the same time");
    assert_eq!(named(&mut g, ms(5)), 2, "and what time changed");
}
